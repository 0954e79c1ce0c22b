"""A TorchScript archive (`torch.jit.save`) as a model: it carries its code, no class is needed.

TorchScript can read and write files through its operators: an archive is as trusted as code.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import Format
from workbench.errors import ModelError, WorkbenchError, first_line

if TYPE_CHECKING:
    import torch

    from workbench.model import Model, ModelSource

# What torch.save writes of tensors; everything else that a pickle names is a class or function.
_TENSORS = ("collections OrderedDict", "torch._utils _rebuild_", "torch.storage ", "torch ")


def build(source: ModelSource, names: Sequence[str] = ()) -> tuple[torch.nn.Module, list[str]]:
    """The archive's module in eval mode. Raises ModelError."""
    return open_archive(source.folder / source.spec), []


def open_archive(path: Path) -> torch.jit.ScriptModule:
    """The archive's module on the CPU, in eval mode. Raises ModelError.

    What is no TorchScript is told apart by its records and never unpickled.
    """
    check(path)
    import torch

    try:
        load: Any = torch.jit.load
        module: torch.jit.ScriptModule = load(str(path), map_location="cpu").eval()
        return module
    except MemoryError:
        raise
    except Exception as error:  # torch's readers raise all kinds on a damaged file
        raise ModelError(
            f"{path} cannot be read as TorchScript",
            f"{type(error).__name__}: {first_line(error)}",
            "get the file again, or save it again with the torch that is here",
        ) from error


def to_python_module(model: Model) -> Model:
    """An archive as a module that exporters follow; any other model as it is.

    An archive with a loop or an operator of its own stays one, and is exported as a script.
    """
    import torch

    from workbench import parity

    if not isinstance(model.module, torch.jit.ScriptModule):
        return model
    from workbench.sources.interpreter import NotInterpretedError, interpret

    try:
        plain = replace(model, module=interpret(model.module))
        # With the archive's outputs, or not at all: what is exported is compared with it alone.
        parity.check("reading TorchScript", model(model.example_inputs),
                     plain(model.example_inputs), 1e-4, 1e-5)  # fmt: skip
    except (NotInterpretedError, WorkbenchError):
        return model
    return plain


def tracing_obstacles(model: Model) -> tuple[str, ...]:
    """What keeps an archive from being followed, for a message; nothing of any other model."""
    import torch

    archive = isinstance(model.module, torch.jit.ScriptModule)
    return ("a loop or an operator of the archive's own",) if archive else ()


def to_script(module: torch.nn.Module) -> Any:
    """A module compiled as a script, or the archive that it was read from."""
    import torch

    archive = getattr(module, "archive", None)
    return archive[0] if isinstance(archive, tuple) else torch.jit.script(module)


def check(path: Path) -> None:
    """That a file is a whole TorchScript archive. Raises ModelError saying what it seems to be."""
    from workbench.file_format import format_of

    _refuse_modules(path)
    kind = format_of(path)
    if kind is not Format.TORCHSCRIPT:
        raise ModelError(
            f"{path} is a .{kind} file, not TorchScript",
            "its content says so, whatever its name",
            f"rename it to {path.stem}.{kind}",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # noqa: BLE001 - zlib's errors, and those of the records' headers
        damaged = f"{type(error).__name__}: {error}"
    if damaged is not None:
        raise ModelError(
            f"{path} is damaged", f"a record is not what was saved: {damaged}", "get it again"
        )


def _refuse_modules(path: Path) -> None:
    """Refuse what torch.save wrote of a module, by the classes that its pickle names."""
    try:
        named = sorted(_globals(_pickle_of(path)))
    except Exception:  # noqa: BLE001 - not a pickle, or damaged: what it is, others say
        return
    classes = [name.replace(" ", ".") for name in named if not name.startswith(_TENSORS)]
    classes.sort(
        key=lambda name: name.startswith(("__builtin__", "builtins", "torch."))
    )  # theirs last
    if classes:
        raise ModelError(
            f"{path} is a pickle of more than tensors, and is refused",
            f"it holds {', '.join(classes[:3])}; opening it would run any code it likes",
            "save its weights, torch.save(model.state_dict(), FILE), and name its factory: "
            "--model file.py:build --weights FILE",
        )


def _pickle_of(path: Path) -> bytes:
    """The pickle of what torch.save wrote, in its new form or its old; ValueError for another."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            content = file.read(1 << 20)  # the old form begins with the pickles; data follows
        if content[:1] != b"\x80":
            raise ValueError("no pickle")
        return content
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        if "constants.pkl" in names:
            raise ValueError("TorchScript")
        return archive.read(names["data.pkl"])


def _globals(content: bytes) -> set[str]:
    """What a pickle, or several in a row, would import, as `module name`; nothing is executed."""
    imported, strings, start = set[str](), [""], 0
    try:
        while content[start : start + 1] == b"\x80":
            end = start
            for opcode, argument, at in pickletools.genops(content[start:]):
                end = start + (at or 0) + 1
                if opcode.name == "GLOBAL":
                    imported.add(str(argument))
                elif opcode.name == "STACK_GLOBAL":
                    imported.add(" ".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
            start = end
    except ValueError:  # data, or the end of what was read
        if not start and not imported:
            raise
    return imported
