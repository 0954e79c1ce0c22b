"""Conversions take ten seconds or more each, so they run once, two at a time, for all tests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import nets
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.dataset import Dataset
from workbench.device.runner import infer, open_session
from workbench.errors import RecipeError, StepError, WorkbenchError
from workbench.steps import ToTflite
from workbench.steps.to_tflite import _signatures

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore:::torch")]

HEIGHT, WIDTH = 24, 40
PRECISIONS = ("float32", "float16", "dynamic", "int8", "int8-io")

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
    "gelu": (lambda: nets.build(nets.Gelu), lambda: nets.dataset_of(x=nets.normal(8, 8)), {}),
}
JOBS = [
    *(("picture", precision) for precision in PRECISIONS),
    ("pair", "float32"), ("twins", "int8"), ("lstm", "float32"), ("gelu", "float32"),
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
            return ToTflite(precision=precision).run(self.sources[case], context)  # type: ignore[arg-type]
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


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("precision", "least"),
    [("float32", 100), ("float16", 50), ("dynamic", 20), ("int8", 20), ("int8-io", 20)],
)
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


@pytest.mark.heavy
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


@pytest.mark.heavy
def test_sizes_shrink_with_the_precision(conversions: Conversions) -> None:
    size = {one: conversions.made("picture", one).size for one in PRECISIONS}
    assert size["float32"] > 1.6 * size["float16"] > 1.2 * size["dynamic"]
    for precision in ("int8", "int8-io"):
        assert size[precision] < 0.5 * size["float32"]


@pytest.mark.heavy
@pytest.mark.parametrize("precision", ["int8", "int8-io"])
def test_int8_files_compute_in_int8(precision: str, conversions: Conversions) -> None:
    made = conversions.made("picture", precision)
    kinds = [detail["dtype"] for detail in interpreter(made).get_tensor_details()]
    floats = sum(kind == np.float32 for kind in kinds)
    assert floats == (0 if precision == "int8-io" else 2)
    assert sum(kind == np.int8 for kind in kinds) > 8
    assert "12 calibration samples" in made.notes
    assert made.precision == "int8"


@pytest.mark.heavy
def test_weights_alone_are_quantized_in_a_dynamic_file(conversions: Conversions) -> None:
    made = conversions.made("picture", "dynamic")
    details = interpreter(made).get_tensor_details()
    assert any(detail["dtype"] == np.int8 for detail in details)
    assert made.precision == "dynamic-int8"
    assert not any("calibration" in note for note in made.notes)


@pytest.mark.heavy
def test_two_inputs_reach_their_places_whatever_the_alphabet(conversions: Conversions) -> None:
    made = conversions.made("pair", "float32")
    assert [spec.name for spec in made.inputs] == ["zebra", "apple"]
    assert [spec.permutation for spec in made.inputs] == [(0, 2, 3, 1), ()]
    given = {"apple": nets.normal(6, 5, seed=8), "zebra": nets.normal(6, 3, 16, 24, seed=7)}
    (wanted,) = nets.run_onnx(conversions.sources["pair"].path, given["zebra"], given["apple"])
    assert nets.decibels(wanted, infer(open_session(made, 1), given)[0]) > 100


@pytest.mark.heavy
def test_two_inputs_of_one_shape_are_calibrated_each_with_its_own(
    conversions: Conversions,
) -> None:
    made = conversions.made("twins", "int8")
    details = {one["name"]: one for one in interpreter(made).get_input_details()}
    assert len(details) == 2
    second, first = nets.normal(6, 6, seed=7), 9 * nets.normal(6, 6, seed=8)
    (found,) = infer(open_session(made, 1), {"1.left": first, "right:0": second})
    assert nets.decibels(2 * second - first, found) > 20


@pytest.mark.heavy
@pytest.mark.parametrize(("case", "named"), [("lstm", "LSTM"), ("gelu", "Erf")])
def test_an_operator_that_does_not_convert_is_named(
    case: str, named: str, conversions: Conversions
) -> None:
    error = conversions.error(case, "float32")
    assert isinstance(error, StepError)
    assert named in str(error)


@pytest.mark.heavy
def test_the_onnx_files_stay_byte_for_byte(conversions: Conversions) -> None:
    for case, made in conversions.sources.items():
        assert made.path.read_bytes() == conversions.contents[case]
        assert {path.name for path in made.path.parent.iterdir()} == {"model.onnx"}


@pytest.mark.heavy
def test_one_saved_model_serves_every_precision(conversions: Conversions) -> None:
    sha256 = conversions.sources["picture"].sha256
    work = conversions.folder / "work"
    assert len([one for one in work.glob(f"*{sha256[:32]}*") if one.is_dir()]) == 1
    for precision in PRECISIONS:
        folder = conversions.made("picture", precision).path.parent
        assert [path.name for path in folder.iterdir()] == [f"model.{precision}.tflite"]


class FourAlike:
    """An interpreter whose four outputs have one shape and names that say nothing."""

    def __init__(self, model_path: str) -> None:
        pass

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"name": "serving_default_x:0", "shape": np.array([1, 8])}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [
            {"name": f"StatefulPartitionedCall:{number}", "shape": np.array([1, 4])}
            for number in range(4)
        ]


def test_every_order_of_four_equal_outputs_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", FourAlike)
    given = TensorSpec(name="x", dtype="float32", shape=(None, 8))
    results = tuple(
        TensorSpec(name=name, dtype="float32", shape=(None, 4)) for name in ("a", "b", "c", "d")
    )
    subject = Artifact(
        path=Path("model.onnx"), format=Format.ONNX, precision="float32", inputs=(given,),
        outputs=results,
    )  # fmt: skip
    candidates = list(_signatures(replace(subject, format=Format.TFLITE), subject))
    orders = {tuple(spec.stored for spec in one.outputs) for one in candidates}
    assert len(orders) == 24


@pytest.mark.parametrize("options", [{"precision": "int4"}, {"samples": 0}, {"samples": 1.5}])
def test_wrong_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        ToTflite(**options)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_int8_needs_samples(precision: str) -> None:
    step = ToTflite(precision=precision)  # type: ignore[arg-type]
    assert step.needs_data == precision.startswith("int8")
