"""The `images` source: a folder per class, or a flat folder with a CSV of labels."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.dataset.preprocess import Preprocess
from workbench.errors import DatasetError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


class Images:
    """Decoded, resized and cropped images, uint8 [H, W, C]; labels are class numbers.

    With a folder per class, the class number is the folder's place in sorted order.
    """

    def __init__(
        self, folder: Path, preprocess: Preprocess, labels: Path | None = None, name: str = "input"
    ) -> None:
        if not folder.is_dir():
            raise DatasetError(f"there is no folder {folder}")
        self.name = name
        self.preprocess = preprocess
        self.labels: NDArray[Any] | None
        if labels is not None:
            self.files, self.labels = _from_csv(folder, labels)
        else:
            self.files, self.labels = _from_folders(folder)
        if not self.files:
            raise DatasetError(
                f"{folder} has no images", f"looked for {', '.join(sorted(SUFFIXES))} files"
            )

    def __len__(self) -> int:
        return len(self.files)

    def where(self, index: int) -> str:
        """The image's file, for a message."""
        return str(self.files[index])

    def identity(self, index: int) -> bytes:
        """A digest of the image's file."""
        return hashlib.sha256(self.files[index].read_bytes()).digest()

    def sample(self, index: int) -> Mapping[str, NDArray[Any]]:
        """The decoded image, [height, width, channels] of uint8."""
        from PIL import Image

        options = self.preprocess
        try:
            with Image.open(self.files[index]) as opened:
                # The decoder may scale a JPEG down by powers of two while reading, which other
                # pipelines do not do: no draft mode, so that figures compare with torchvision's.
                image = _eight_bits(opened, self.files[index])
                image = image.convert("L" if options.channels == "L" else "RGB")
        except DatasetError:
            raise
        except Exception as error:  # a decoder may raise anything over a file that is not whole
            raise DatasetError(
                f"{self.files[index]} cannot be read as an image",
                str(error),
                "mend or remove the file",
            ) from error
        if options.resize is not None:
            # Long side floored, as torchvision.transforms.Resize does.
            ratio = options.resize / min(image.size)
            size = tuple(max(options.resize, int(side * ratio)) for side in image.size)
            if size != image.size:
                image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        if options.crop is not None:
            image = _centre(image, options.crop, self.files[index])
        pixels = np.asarray(image)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        return {self.name: pixels[:, :, ::-1] if options.channels == "BGR" else pixels}


def _eight_bits(image: Any, path: Path) -> Any:
    """An image of 16 bits for each pixel as one of 8; Pillow would make white of all above 255.

    Raises DatasetError for pixels of 32 bits, whose white is not known.
    """
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "floats" if image.mode == "F" else "integers"
        raise DatasetError(
            f"{path} has pixels that are {kind} of 32 bits",
            "which of their values is white is not known",
            "save them with 8 or 16 bits, or give the values by the numpy source",
        )
    return image


def _centre(image: Any, side: int, path: Path) -> Any:
    if min(image.size) < side:
        raise DatasetError(
            f"{path} is {image.size[0]}x{image.size[1]}, smaller than preprocess.crop = {side}",
            "",
            "give preprocess.resize, or a smaller crop",
        )
    x, y = round((image.size[0] - side) / 2), round((image.size[1] - side) / 2)
    return image.crop((x, y, x + side, y + side))


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _from_folders(folder: Path) -> tuple[list[Path], NDArray[Any] | None]:
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        return _images_in(folder), None
    files, labels = [], []
    for number, class_folder in enumerate(classes):
        images = _images_in(class_folder)
        files += images
        labels += [number] * len(images)
    return files, np.asarray(labels, np.int64)


def _from_csv(folder: Path, path: Path) -> tuple[list[Path], NDArray[Any]]:
    """Rows `file,label`; a header is skipped; names are numbered in sorted order."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as CSV", str(error)) from error
    if rows and _is_header(rows[0][1][0], folder):
        rows = rows[1:]
    files, words = [], []
    for line, row in rows:
        if len(row) < 2:
            raise DatasetError(f"{path}: line {line} has no label", "", "write file,label")
        file = folder / row[0]
        if not file.is_file():
            raise DatasetError(f"{path}: line {line} names {row[0]}, which is not in {folder}")
        files.append(file)
        words.append(row[1].strip())
    if not all(word.removeprefix("-").isdecimal() for word in words):
        names = {word: number for number, word in enumerate(sorted(set(words)))}
        return files, np.asarray([names[word] for word in words], np.int64)
    for (line, _), word in zip(rows, words, strict=True):
        if word.startswith("-") or len(word) > 9:
            raise DatasetError(f"{path}: line {line}: {word[:20]} is no number of a class")
    return files, np.asarray([int(word) for word in words], np.int64)


def _is_header(word: str, folder: Path) -> bool:
    """A first cell that neither is a file nor is called like one, which may be missing."""
    return Path(word).suffix.lower() not in SUFFIXES and not (folder / word).is_file()
