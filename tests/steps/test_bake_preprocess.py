"""Baked files are fed raw pixels in plain runtimes, and compared with PyTorch on what the dataset
makes of the same pixels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests import nets
from workbench import parity
from workbench.artifact import Artifact
from workbench.dataset import Dataset
from workbench.dataset.arrays import Arrays
from workbench.dataset.core import Split
from workbench.dataset.images import Images
from workbench.dataset.preprocess import Preprocess
from workbench.device.session import infer, open_session
from workbench.errors import StepError
from workbench.onnxgraph import signature
from workbench.steps import BakePreprocess, QuantizeStatic, Simplify, ToOrt, ToTflite

HEIGHT, WIDTH = 24, 40
IMAGENET = Preprocess(
    scale=255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), layout="NCHW"
)


class Last(nn.Module):
    """ConvNet on images [N, H, W, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nets.ConvNet()

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.net(image.permute(0, 3, 1, 2))
        return result


class Grey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        found = self.convolution(image).relu()
        return torch.cat([found[:, :, :, :3].mean((2, 3)), found[:, :, 2:].amax((2, 3))], 1)


class Probable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nets.ConvNet()

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.net(image).softmax(1)
        return result


def pixels(count: int = 12, channels: int = 3, seed: int = 0) -> nets.Array:
    """uint8 [N, H, W, C]: coarse blocks of colours, unlike in every direction, 0 and 255 in all."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 3, 4, channels))
    images = blocks.repeat(HEIGHT // 3, 1).repeat(WIDTH // 4, 2) * np.linspace(1, 0.3, channels)
    images[:, 0, 0], images[:, 0, 1] = 0, 255
    return images.astype(np.uint8)


def dataset(preprocess: Preprocess, **arrays: nets.Array) -> Dataset:
    source = Arrays(arrays, None, "x.npz")
    return Dataset(
        "testing", Split("calibration", source, np.arange(len(source)), preprocess), None
    )


def baked(
    folder: Path, module: nn.Module, data: Dataset, **options: Any
) -> tuple[Artifact, Artifact]:
    """The file of a network, and the baked one."""
    plain = nets.exported(folder / "export", module, data)
    step = BakePreprocess(**options)
    return plain, step.run(plain, nets.context(folder / "bake", data))


def normalized(images: nets.Array) -> nets.Array:
    """What IMAGENET makes of pixels, computed in another way."""
    scaled = images.astype(np.float64) / 255
    last = (scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return last.transpose(0, 3, 1, 2).astype(np.float32)


def network() -> nets.ConvNet:
    """ConvNet whose classes all get their share of images, so that their order can be wrong."""
    module = nets.build()
    assert isinstance(module, nets.ConvNet)
    with torch.no_grad():
        module.classifier.bias -= module(torch.from_numpy(normalized(pixels(64, seed=9)))).mean(0)
    return module


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    data = dataset(IMAGENET, image=pixels())
    return baked(tmp_path_factory.mktemp("pair"), network(), data)


def test_raw_pixels_give_what_the_network_gives_on_preprocessed_ones(pair) -> None:  # type: ignore[no-untyped-def]
    images = pixels(5, seed=3)
    expected = nets.run_torch(network(), normalized(images)).numpy()
    for optimized in (True, False):
        found = nets.run_onnx(pair[1].path, images, optimized=optimized)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_file_takes_uint8_and_the_artifact_says_how_it_is_made(pair) -> None:  # type: ignore[no-untyped-def]
    (value,) = onnx.load(pair[1].path).graph.input
    assert value.name == "image"
    assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    assert sizes == [0, HEIGHT, WIDTH, 3]
    (spec,) = pair[1].inputs
    assert (spec.dtype, spec.shape, spec.permutation) == (
        "float32", (None, 3, HEIGHT, WIDTH), (0, 2, 3, 1),
    )  # fmt: skip
    assert spec.pixels is not None
    assert spec.pixels.factor == pytest.approx([1 / 255 / std for std in IMAGENET.std])
    assert spec.pixels.offset == pytest.approx([-2.11790393, -2.03571429, -1.80444444])
    assert not spec.pixels.reversed
    assert "baked: image takes uint8 pixels [N, 24, 40, 3], RGB" in pair[1].notes
    assert Artifact.from_json(pair[1].to_json(), pair[1].path.parent) == pair[1]


def test_sessions_turn_the_datasets_values_back_into_pixels(pair) -> None:  # type: ignore[no-untyped-def]
    images = pixels(4, seed=5)
    session = open_session(pair[1], threads=1)
    prepared = session.prepare({"image": normalized(images)})
    assert prepared["image"].dtype == np.uint8
    assert (prepared["image"] == images).all()


def test_values_that_no_pixel_has_are_clipped(pair) -> None:  # type: ignore[no-untyped-def]
    far = np.full((1, 3, HEIGHT, WIDTH), 100, np.float32)
    prepared = open_session(pair[1], threads=1).prepare({"image": far})
    assert (prepared["image"] == 255).all()


def test_a_model_of_bgr_takes_rgb_pixels(tmp_path: Path) -> None:
    """Through the images source, which is what gives a model BGR."""
    from PIL import Image

    images = pixels(8)
    for number, one in enumerate(images):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
    preprocess = replace(IMAGENET, channels="BGR")
    source = Images(tmp_path, preprocess)
    data = Dataset("bgr", Split("calibration", source, np.arange(8), preprocess), None)
    plain, made = baked(tmp_path, network(), data)
    given = normalized(images[..., ::-1])
    expected = nets.run_torch(network(), given).numpy()
    assert nets.decibels(expected, nets.run_torch(network(), normalized(images)).numpy()) < 20
    np.testing.assert_allclose(nets.run_onnx(made.path, images)[0], expected, 1e-4, 1e-5)
    assert plain.inputs[0].name == made.inputs[0].name
    prepared = open_session(made, threads=1).prepare({"input": given})
    assert (next(iter(prepared.values())) == images).all()


def test_a_model_of_channels_last(tmp_path: Path) -> None:
    data = dataset(replace(IMAGENET, layout="NHWC"), image=pixels())
    _, made = baked(tmp_path, nets.build(Last), data)
    images = pixels(3, seed=1)
    expected = nets.run_torch(nets.build(Last), normalized(images).transpose(0, 2, 3, 1)).numpy()
    np.testing.assert_allclose(nets.run_onnx(made.path, images)[0], expected, 1e-4, 1e-5)
    assert made.inputs[0].permutation == ()
    assert made.inputs[0].stored_shape == (None, HEIGHT, WIDTH, 3)


def test_grey_images_have_one_factor(tmp_path: Path) -> None:
    preprocess = Preprocess(channels="L", scale=255, mean=(0.3,), std=(0.4,), layout="NCHW")
    _, made = baked(tmp_path, nets.build(Grey), dataset(preprocess, image=pixels(channels=1)))
    images = pixels(3, channels=1, seed=1)
    given = ((images.transpose(0, 3, 1, 2) / 255 - 0.3) / 0.4).astype(np.float32)
    expected = nets.run_torch(nets.build(Grey), given).numpy()
    np.testing.assert_allclose(nets.run_onnx(made.path, images)[0], expected, 1e-4, 1e-5)
    assert "baked: image takes uint8 pixels [N, 24, 40, 1]" in made.notes


def test_one_mean_for_all_channels_and_a_fixed_batch(tmp_path: Path) -> None:
    data = dataset(Preprocess(scale=127.5, mean=(1,), layout="NCHW"), image=pixels())
    plain = nets.exported(tmp_path / "export", network(), data, dynamic_batch=False)
    made = BakePreprocess().run(plain, nets.context(tmp_path / "bake", data))
    images = pixels(1, seed=1)
    given = (images.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)
    expected = nets.run_torch(network(), given).numpy()
    np.testing.assert_allclose(nets.run_onnx(made.path, images)[0], expected, 1e-4, 1e-5)
    assert made.inputs[0].shape == (1, 3, HEIGHT, WIDTH)


def test_only_the_inputs_that_are_images_are_baked(tmp_path: Path) -> None:
    preprocess = replace(IMAGENET, inputs=("zebra",))
    numbers = nets.normal(12, 5, seed=1)
    data = dataset(preprocess, zebra=pixels(), apple=numbers)
    _, made = baked(tmp_path, nets.build(nets.TwoInputs), data)
    images, vector = pixels(3, seed=1), nets.normal(3, 5, seed=2)
    expected = nets.run_torch(nets.build(nets.TwoInputs), normalized(images), vector).numpy()
    np.testing.assert_allclose(nets.run_onnx(made.path, images, vector)[0], expected, 1e-4, 1e-5)
    assert [spec.pixels is None for spec in made.inputs] == [False, True]


@pytest.mark.parametrize("head", ["softmax", "argmax"])
def test_a_head_at_the_end(head: Any, tmp_path: Path) -> None:
    data = dataset(IMAGENET, image=pixels())
    _, made = baked(tmp_path, network(), data, head=head)
    images = pixels(6, seed=1)
    logits = nets.run_torch(network(), normalized(images))
    (found,) = nets.run_onnx(made.path, images)
    (session,) = infer(open_session(made, 1), {"image": normalized(images)})
    assert made.outputs[0].shape == (None, 10)
    assert made.outputs[0].dtype == "float32"
    if head == "softmax":
        np.testing.assert_allclose(found, logits.softmax(1).numpy(), rtol=1e-4)
        assert (session == found).all()
    else:
        assert (found.dtype, found.shape) == (np.int64, (6,))
        assert (found == logits.argmax(1).numpy()).all()
        assert (session == np.eye(10, dtype=np.float32)[found]).all()
    assert any(note.startswith(f"{head} at the end") for note in made.notes)


def test_other_outputs_are_left_as_they_are(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nets.ConvNet()

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            found = self.net(image)
            return found, found * 2  # made of the output that gets the head

    data = dataset(IMAGENET, image=pixels())
    plain = nets.exported(tmp_path / "export", nets.build(Two), data, ("scores", "double"))
    step = BakePreprocess(head="argmax")
    made = step.run(plain, nets.context(tmp_path / "bake", data))
    images = pixels(4, seed=1)
    scores, double = nets.run_torch(nets.build(Two), normalized(images))
    classes, found = nets.run_onnx(made.path, images)
    assert (classes == scores.argmax(1).numpy()).all()
    np.testing.assert_allclose(found, double.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "head"), [(Probable, "softmax"), (nets.TwoInputs, "softmax")], ids=["again", "map"]
)
def test_a_head_that_does_not_fit_is_refused(module: Any, head: Any, tmp_path: Path) -> None:
    if module is Probable:
        data, said = dataset(IMAGENET, image=pixels()), "softmax already"
    else:
        module, said = _Map, "no classes"
        data = dataset(IMAGENET, image=pixels())
    plain = nets.exported(tmp_path / "export", nets.build(module), data)
    with pytest.raises(StepError, match=said):
        BakePreprocess(head=head).run(plain, nets.context(tmp_path / "bake", data))


class _Map(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.convolution(image)
        return result


@pytest.mark.parametrize(
    ("preprocess", "change", "said"),
    [
        (IMAGENET, lambda x: x.clip(1, 254) + 0.25, "values 0.25 from a whole number"),
        (IMAGENET, lambda x: x.astype(np.float32) + 200, "values 20[0-9] to"),
        (IMAGENET, lambda x: x.astype(np.float32) - 20, "values -"),
        (
            Preprocess(layout="NCHW"),
            lambda x: x - np.float32(117.4),
            r"as they are.*\[preprocess\]",
        ),
    ],
    ids=["fractions", "too bright", "negative", "normalized beforehand"],
)
def test_samples_that_are_no_8_bit_images_are_refused(
    preprocess: Preprocess, change: Any, said: str, tmp_path: Path
) -> None:
    data = dataset(preprocess, image=change(pixels()).astype(np.float32))
    plain = nets.exported(tmp_path / "export", network(), data)
    with pytest.raises(StepError, match="not 8-bit images") as caught:
        BakePreprocess().run(plain, nets.context(tmp_path / "bake", data))
    assert re.search(said, f"{caught.value.why} {caught.value.fix}")
    assert not list((tmp_path / "bake").iterdir())


def test_a_model_without_images_is_refused(tmp_path: Path) -> None:
    data = nets.dataset_of(x=nets.normal(8, 8))
    plain = nets.exported(tmp_path / "export", nets.build(nets.Mlp), data)
    with pytest.raises(StepError, match="no input is an image"):
        BakePreprocess().run(plain, nets.context(tmp_path / "bake", data))


def test_a_baked_file_is_not_baked_again(pair, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = dataset(IMAGENET, image=pixels())
    with pytest.raises(StepError, match="already"):
        BakePreprocess().run(pair[1], nets.context(tmp_path, data))


def test_a_layout_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    images = pixels()[:, :3]  # [N, 3, 40, 3]
    data = dataset(Preprocess(scale=255, stored="NHWC", layout="NCHW"), image=images)
    plain = nets.exported(tmp_path / "export", _Map().eval(), data)
    untold = replace(data, calibration=nets.split_of(image=images.astype(np.float32)))
    with pytest.raises(StepError, match="layout") as caught:
        BakePreprocess().run(plain, nets.context(tmp_path / "bake", untold))
    assert "preprocess.layout" in caught.value.fix


def test_simplifying_afterwards_keeps_what_is_known(pair, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = dataset(IMAGENET, image=pixels())
    made = Simplify().run(pair[1], nets.context(tmp_path, data))
    assert (made.inputs, made.outputs) == (pair[1].inputs, pair[1].outputs)


@pytest.mark.parametrize("head", ["none", "softmax", "argmax"])
def test_int8_leaves_preprocessing_and_head_in_float(head: Any, tmp_path: Path) -> None:
    data = dataset(IMAGENET, image=pixels())
    plain, made = baked(tmp_path, network(), data, head=head)
    small = QuantizeStatic().run(made, nets.context(tmp_path / "int8", data))
    reference = QuantizeStatic().run(plain, nets.context(tmp_path / "plain", data))
    assert (small.inputs, small.outputs) == (made.inputs, made.outputs)
    kinds = {node.output[0]: node.op_type for node in onnx.load(small.path).graph.node}
    (front,) = (node for node in onnx.load(small.path).graph.node
                if node.name.startswith(signature.BAKED) and node.op_type == "Conv")  # fmt: skip
    assert kinds[front.input[0]] == "Cast"
    # The network in it is quantized as in the file without: planned on logits, whatever the head.
    images = pixels(64, seed=1)
    inputs = {"image": normalized(images)}
    ending = "" if head == "none" else head
    wanted = infer(open_session(plain, 1), inputs)
    bare = parity.apply_head(infer(open_session(reference, 1), inputs), ending)
    found = infer(open_session(small, 1), inputs)
    ort = ToOrt().run(small, nets.context(tmp_path / "ort", data))
    for made_there in (found, infer(open_session(ort, 1), inputs)):
        if head == "argmax":
            floats = parity.apply_head(wanted, ending)[0]
            agreement, least = ((one == floats).all(1).mean() for one in (made_there[0], bare[0]))
            assert agreement >= least - 0.1
        else:
            float_there = parity.apply_head(wanted, ending)[0]
            least = nets.decibels(float_there, bare[0]) - 2
            assert nets.decibels(float_there, made_there[0]) > max(least, 15)


@pytest.mark.process
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:::torch")
@pytest.mark.parametrize(
    ("case", "head", "precision"),
    [("first", "softmax", "int8"), ("first", "argmax", "int8"), ("last", "none", "float32")],
)
def test_tflite_takes_raw_pixels(case: str, head: Any, precision: Any, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    module = nets.build(Last) if case == "last" else network()
    layout = "NHWC" if case == "last" else "NCHW"
    channels = "BGR" if case == "last" else "RGB"
    data = dataset(replace(IMAGENET, layout=layout, channels=channels), image=pixels())
    _, made = baked(tmp_path, module, data, head=head)
    file = ToTflite(precision=precision).run(made, nets.context(tmp_path / "tflite", data))
    interpreter = Interpreter(str(file.path))
    interpreter.allocate_tensors()
    (given,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == np.uint8
    assert given["shape"].tolist() == [1, HEIGHT, WIDTH, 3]
    images = pixels(8, seed=1)
    found = []
    for one in images:
        interpreter.set_tensor(given["index"], one[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(gives["index"])[0])
    result = np.stack(found)
    taken = normalized(images[..., ::-1] if channels == "BGR" else images)
    logits = nets.run_torch(module, taken if case == "first" else taken.transpose(0, 2, 3, 1))
    if head == "argmax":
        assert (result == logits.argmax(1).numpy()).mean() >= 0.75
    elif head == "softmax":
        assert nets.decibels(logits.softmax(1).numpy(), result) > 25
    else:
        np.testing.assert_allclose(result, logits.numpy(), rtol=1e-4, atol=1e-5)
    session = infer(open_session(file, 1), {"image": taken if case == "first"
                                            else taken.transpose(0, 2, 3, 1)})  # fmt: skip
    wanted = np.eye(10, dtype=np.float32)[result] if head == "argmax" else result
    assert (session[0] == wanted).all()
