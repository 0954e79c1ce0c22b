"""Conversions take ten seconds or more each, so they run once, two at a time, for all tests."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import nets
from workbench.artifact import Artifact
from workbench.dataset import Dataset
from workbench.device.session import infer, open_session
from workbench.errors import InputError, RecipeError, StepError, WorkbenchError
from workbench.steps import ToTflite

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore:::torch")]

HEIGHT, WIDTH = 24, 40
PRECISIONS = ("float32", "float16", "dynamic", "int8", "int8-io", "int16")

Outcomes = dict[str, Artifact | WorkbenchError]


def pictures() -> Dataset:
    return nets.images(12, HEIGHT, WIDTH)


def pair() -> Dataset:
    """For TwoInputs; the alphabet would put `apple` first."""
    return nets.dataset_of(zebra=nets.normal(12, 3, 16, 24), apple=nets.normal(12, 5, seed=1))


def twins() -> Dataset:
    """For Difference: two inputs of one shape and two scales, named as tf2onnx and old torch do."""
    return nets.dataset_of(
        **{"right:0": nets.normal(12, 6), "1.left": 9 * nets.normal(12, 6, seed=1)}
    )


class Patches(nn.Module):
    """As many channels as places: nothing tells the two apart by size."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.linspace(-1, 1, 16)[None, None])
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1)
        weights = (tokens @ tokens.transpose(1, 2)).softmax(-1)
        result: Tensor = self.head(self.norm(weights @ tokens)[:, 0])
        return result


class Words(nn.Module):
    """Token ids and a mask of -10000, in 8 bits more than the scores, and a Gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.up, self.head = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids)
        masked = (1.0 - mask[:, None, :].to(x.dtype)) * -10000.0
        x = (x @ x.transpose(1, 2) / 4 + masked).softmax(-1) @ x
        result: Tensor = self.head(nn.functional.gelu(self.up(x)).mean(1))
        return result


def sentences() -> Dataset:
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 9, 12)
    return nets.dataset_of(
        ids=generator.integers(0, 50, (12, 8)),
        mask=(np.arange(8) < lengths[:, None]).astype(np.int64),
    )


class Erf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


def vectors() -> Dataset:
    return nets.dataset_of(x=nets.normal(12, 8))


# Enough channels that the weights, not the graph's description, are most of the file.
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "picture": (lambda: nets.build(channels=128), pictures, {}),
    "pair": (lambda: nets.build(nets.TwoInputs), pair, {}),
    "twins": (lambda: nets.build(nets.Difference), twins, {}),
    "lstm": (
        lambda: nets.build(nets.TwoWayLstm),
        lambda: nets.dataset_of(x=nets.normal(8, 7, 6)),
        {"dynamic_batch": False},
    ),
    "gelu": (lambda: nets.build(nets.Gelu), vectors, {}),
    "outputs": (
        lambda: nets.build(nets.Outputs), vectors, {"outputs": ("scores", "embedding")}
    ),
    "patches": (lambda: nets.build(Patches), lambda: nets.images(12, 16, 16), {}),
    "pool": (
        lambda: nets.build(
            lambda: nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 4, 3)
            )
        ),
        lambda: nets.images(12, 18, 22),
        {},
    ),
    "words": (lambda: nets.build(Words), sentences, {}),
    "elu": (
        lambda: nets.build(lambda: nn.Sequential(nn.Linear(8, 8), nn.ELU(), nn.Linear(8, 4))),
        vectors,
        {},
    ),
    "erf": (Erf, vectors, {}),
}  # fmt: skip
JOBS = [
    *(("picture", precision) for precision in PRECISIONS),
    ("pair", "float32"), ("twins", "int8"), ("lstm", "float32"), ("lstm", "int8"),
    ("gelu", "float32"), ("outputs", "float32"), ("patches", "float32"), ("pool", "int8"),
    ("words", "int8"), ("words", "int16"), ("elu", "int8"), ("elu", "int8-io"), ("erf", "float32"),
]  # fmt: skip


class Conversions:
    """Every case's ONNX file, its content before, and what each conversion gave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = {
            case: nets.exported(folder / case, build(), data(), **options)
            for case, (build, data, options) in CASES.items()
        }
        self.contents = {case: made.path.read_bytes() for case, made in self.sources.items()}
        with ThreadPoolExecutor(2) as threads:
            outcomes = threads.map(lambda job: self.convert(*job), JOBS)
            self.outcomes = {
                f"{case} {precision}": outcome
                for (case, precision), outcome in zip(JOBS, outcomes, strict=True)
            }

    def convert(self, case: str, precision: str) -> Artifact | WorkbenchError:
        folder = self.folder / f"{case}-{precision}"
        context = nets.context(folder, CASES[case][1](), work=self.folder / "work")
        try:
            step = ToTflite(precision=precision, c_array=precision == "int8-io")  # type: ignore[arg-type]
            return step.run(self.sources[case], context)
        except WorkbenchError as error:
            return error

    def made(self, case: str, precision: str) -> Artifact:
        found = self.outcomes[f"{case} {precision}"]
        if isinstance(found, WorkbenchError):
            raise found
        return found

    def error(self, case: str, precision: str) -> WorkbenchError:
        found = self.outcomes[f"{case} {precision}"]
        assert isinstance(found, WorkbenchError)
        return found


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> Conversions:
    return Conversions(tmp_path_factory.mktemp("tflite"))


def interpreter(artifact: Artifact) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    loaded = Interpreter(model_path=str(artifact.path))
    loaded.allocate_tensors()
    return loaded


@pytest.mark.process
@pytest.mark.parametrize(
    ("precision", "least"),
    [("float32", 100), ("float16", 50), ("dynamic", 20), ("int8", 20), ("int8-io", 20),
     ("int16", 25)],
)  # fmt: skip
def test_outputs_agree_with_the_onnx_file_on_images_that_are_not_square(
    precision: str, least: float, conversions: Conversions
) -> None:
    made = conversions.made("picture", precision)
    some = nets.normal(6, 3, HEIGHT, WIDTH, seed=5)
    (wanted,) = nets.run_onnx(conversions.sources["picture"].path, some)
    (found,) = infer(open_session(made, 1), {"image": some})
    assert nets.decibels(wanted, found) > least
    assert (made.inputs[0].permutation, made.inputs[0].shape) == ((0, 2, 3, 1), (1, 3, 24, 40))
    assert made.path.name == f"model.{precision}.tflite"


@pytest.mark.process
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_file_takes_nhwc_in_litert_itself(precision: str, conversions: Conversions) -> None:
    made = conversions.made("picture", precision)
    loaded = interpreter(made)
    ((given,), (result,)) = loaded.get_input_details(), loaded.get_output_details()
    assert given["shape"].tolist() == [1, HEIGHT, WIDTH, 3]
    some = nets.normal(1, 3, HEIGHT, WIDTH, seed=5)
    stored = some.transpose(0, 2, 3, 1)
    if precision == "int8-io":
        assert given["dtype"] == result["dtype"] == np.int8
        scale, zero = given["quantization"]
        stored = np.clip(np.round(stored / scale + zero), -128, 127).astype(np.int8)
    else:
        assert given["dtype"] == result["dtype"] == np.float32
    loaded.set_tensor(given["index"], np.ascontiguousarray(stored))
    loaded.invoke()
    found = loaded.get_tensor(result["index"])
    if precision == "int8-io":
        scale, zero = result["quantization"]
        found = (found.astype(np.float32) - zero) * scale
    (wanted,) = nets.run_onnx(conversions.sources["picture"].path, some)
    assert nets.decibels(wanted, found) > 18


@pytest.mark.process
def test_sizes_shrink_with_the_precision(conversions: Conversions) -> None:
    size = {one: conversions.made("picture", one).size for one in PRECISIONS}
    assert size["float32"] > 1.6 * size["float16"] > 1.2 * size["dynamic"]
    for precision in ("int8", "int8-io"):
        assert size[precision] < 0.5 * size["float32"]


@pytest.mark.process
@pytest.mark.parametrize("precision", ["int8", "int8-io"])
def test_int8_files_compute_in_int8(precision: str, conversions: Conversions) -> None:
    made = conversions.made("picture", precision)
    kinds = [detail["dtype"] for detail in interpreter(made).get_tensor_details()]
    floats = sum(kind == np.float32 for kind in kinds)
    assert floats == (0 if precision == "int8-io" else 2)
    assert sum(kind == np.int8 for kind in kinds) > 8
    assert "12 calibration samples" in made.notes
    assert made.precision == "int8"


@pytest.mark.process
def test_weights_alone_are_quantized_in_a_dynamic_file(conversions: Conversions) -> None:
    made = conversions.made("picture", "dynamic")
    details = interpreter(made).get_tensor_details()
    assert any(detail["dtype"] == np.int8 for detail in details)
    assert made.precision == "dynamic-int8"
    assert not any("calibration" in note for note in made.notes)


@pytest.mark.process
def test_two_inputs_reach_their_places_whatever_the_alphabet(conversions: Conversions) -> None:
    made = conversions.made("pair", "float32")
    assert [spec.name for spec in made.inputs] == ["zebra", "apple"]
    assert [spec.permutation for spec in made.inputs] == [(0, 2, 3, 1), ()]
    given = {"apple": nets.normal(6, 5, seed=8), "zebra": nets.normal(6, 3, 16, 24, seed=7)}
    (wanted,) = nets.run_onnx(conversions.sources["pair"].path, given["zebra"], given["apple"])
    assert nets.decibels(wanted, infer(open_session(made, 1), given)[0]) > 100


@pytest.mark.process
def test_two_inputs_of_one_shape_are_calibrated_each_with_its_own(
    conversions: Conversions,
) -> None:
    made = conversions.made("twins", "int8")
    details = {one["name"]: one for one in interpreter(made).get_input_details()}
    assert len(details) == 2
    second, first = nets.normal(6, 6, seed=7), 9 * nets.normal(6, 6, seed=8)
    (found,) = infer(open_session(made, 1), {"1.left": first, "right:0": second})
    assert nets.decibels(2 * second - first, found) > 20


def found_by_both(made: Artifact, source: Artifact, **samples: Any) -> tuple[Any, Any]:
    """Outputs of the ONNX file and of the `.tflite` one."""
    wanted = infer(open_session(source, 1), samples)
    return wanted, infer(open_session(made, 1), samples)


@pytest.mark.process
@pytest.mark.parametrize(
    ("case", "precision", "least", "said"),
    [
        ("lstm", "float32", 100, "LSTM unrolled in 14 steps"),
        ("lstm", "int8", 25, "LSTM unrolled in 14 steps"),
        ("gelu", "float32", 100, "opset raised from 17 to 20 for 1 Gelu"),
        ("patches", "float32", 100, ""),
        ("pool", "int8", 25, ""),
    ],
)
def test_what_onnx2tf_does_not_convert_by_itself(
    case: str, precision: str, least: float, said: str, conversions: Conversions
) -> None:
    made, source = conversions.made(case, precision), conversions.sources[case]
    (spec,) = source.inputs
    samples = nets.normal(6, *(size or 1 for size in spec.shape[1:]), seed=5)
    wanted, found = found_by_both(made, source, **{spec.name: samples})
    assert nets.decibels(wanted[0], found[0]) > least
    assert said == "" or said in made.notes
    assert made.precision == precision


@pytest.mark.process
@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_words_and_their_mask_survive_quantization(
    precision: str, conversions: Conversions
) -> None:
    made = conversions.made("words", precision)
    samples = sentences().examples(12)
    wanted, found = found_by_both(made, conversions.sources["words"], **samples)
    assert nets.decibels(wanted[0], found[0]) > 20  # 9 dB with the mask's own range
    assert any("masks bounded" in note for note in made.notes)
    if precision == "int16":
        kinds = [detail["dtype"] for detail in interpreter(made).get_tensor_details()]
        assert sum(kind == np.int16 for kind in kinds) > 8


@pytest.mark.process
def test_ids_that_do_not_fit_are_refused(conversions: Conversions) -> None:
    made = conversions.made("words", "int8")
    samples = sentences().examples(2)
    halves = {**samples, "ids": samples["ids"] + 0.5}
    with pytest.raises(InputError, match=r"'ids' holds .*cannot hold"):
        infer(open_session(made, 1), halves)


@pytest.mark.process
def test_each_output_is_the_one_of_its_name(conversions: Conversions) -> None:
    made = conversions.made("outputs", "float32")
    assert [spec.name for spec in made.outputs] == ["scores", "embedding"]
    samples = nets.normal(6, 8, seed=5)
    wanted, found = found_by_both(made, conversions.sources["outputs"], x=samples)
    for before, after in zip(wanted, found, strict=True):
        assert nets.decibels(before, after) > 100
    signature = interpreter(made).get_signature_list()["serving_default"]
    assert set(signature["outputs"]) == {"scores", "embedding"}


@pytest.mark.process
def test_an_operator_without_int8_kernel_computes_in_float_and_is_said(
    conversions: Conversions,
) -> None:
    made = conversions.made("elu", "int8")
    assert made.precision == "mixed-int8"
    assert "INT8 but for 1 operator in float: 1 ELU" in made.notes
    wanted, found = found_by_both(made, conversions.sources["elu"], x=nets.normal(6, 8, seed=5))
    assert nets.decibels(wanted[0], found[0]) > 20


@pytest.mark.process
@pytest.mark.parametrize(
    ("case", "precision", "named"), [("elu", "int8-io", "ELU"), ("erf", "float32", "operator Erf")]
)
def test_an_operator_that_does_not_convert_is_named(
    case: str, precision: str, named: str, conversions: Conversions
) -> None:
    error = conversions.error(case, precision)
    assert isinstance(error, StepError)
    assert named in str(error)
    assert not [one for one in (conversions.folder / f"{case}-{precision}").iterdir()
                if one.suffix == ".tflite"]  # fmt: skip


@pytest.mark.process
def test_firmware_gets_the_file_as_an_array(conversions: Conversions) -> None:
    made = conversions.made("picture", "int8-io")
    header, source = (path.read_text() for path in made.companions)
    assert "extern const unsigned char g_model_data[];" in header
    stored = bytes(int(word, 16) for word in re.findall(r"0x(\w\w)", source))
    assert stored == made.path.read_bytes()
    (arena,) = (note for note in made.notes if "arena" in note)
    # The image, 24 by 40 by 3, and what the first convolution makes of it.
    assert int(re.findall(r"\d+", arena)[0]) >= 24 * 40 * 3 + 12 * 20 * 128


@pytest.mark.process
def test_the_onnx_files_stay_byte_for_byte(conversions: Conversions) -> None:
    for case, made in conversions.sources.items():
        assert made.path.read_bytes() == conversions.contents[case]
        assert {path.name for path in made.path.parent.iterdir()} == {"model.onnx"}


@pytest.mark.process
def test_one_saved_model_serves_every_precision(conversions: Conversions) -> None:
    work = conversions.folder / "work"
    # Files with token ids are prepared apart for 16 bits; what failed leaves nothing.
    wanted = len(CASES) - 1 + 1
    assert len([one for one in work.iterdir() if one.is_dir() and one.suffix == ""]) == wanted
    for precision in PRECISIONS:
        made = conversions.made("picture", precision)
        names = {path.name for path in made.path.parent.iterdir()}
        assert names == {made.path.name, *(path.name for path in made.companions)}


@pytest.mark.parametrize("options", [{"precision": "int4"}, {"samples": 0}, {"samples": 1.5}])
def test_wrong_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        ToTflite(**options)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_quantized_activations_need_samples(precision: str) -> None:
    step = ToTflite(precision=precision)  # type: ignore[arg-type]
    assert step.needs_data == precision.startswith("int")
