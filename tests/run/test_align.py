"""Mappings of tensors, on files that need not exist: the outputs are computed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.nets import Array, normal
from workbench.artifact import (
    Artifact,
    Format,
    Pixels,
    TensorSpec,
    canonical_output,
    feed,
    stored_input,
)
from workbench.errors import DeviceError, ModelError
from workbench.run.align import align_artifact, input_mappings, mapping_lines, onto_data


def spec(name: str, *shape: int | None, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def artifact(
    inputs: list[TensorSpec], outputs: list[TensorSpec], kind: Format = Format.ONNX
) -> Artifact:
    return Artifact(path=Path(f"some.{kind}"), format=kind, precision="float32",
                    inputs=tuple(inputs), outputs=tuple(outputs))  # fmt: skip


def runs(
    function: Callable[..., list[Array]], samples: dict[str, Array]
) -> Callable[[Artifact], list[Array]]:
    """A runtime: the file's own function of its own inputs, in its own names and layout."""

    def run(trial: Artifact) -> list[Array]:
        given = feed(trial.inputs, samples)
        own = {one.stored_name: stored_input(one, given[one.name]) for one in trial.inputs}
        return function(**own)

    return run


def test_names_decide_where_they_match_whatever_converters_put_around_them() -> None:
    wanted = [spec("right:0", None, 6), spec("1.left", None, 6)]
    names = ["serving_default_1_left:0", "serving_default_right__0:0"]
    file = artifact([spec(name, 1, 6) for name in names], [spec("o", 1, 6)], Format.TFLITE)
    (found,) = input_mappings(file, wanted)
    assert [(one.name, one.stored_name) for one in found] == [
        ("1.left", names[0]), ("right:0", names[1])
    ]  # fmt: skip


def test_an_image_fits_as_nhwc_where_its_shape_does_and_only_so() -> None:
    file = artifact([spec("x", 1, 24, 40, 3)], [spec("y", 1, 10)], Format.TFLITE)
    made = onto_data(file, [spec("image", None, 3, 24, 40)])
    (one,) = made.inputs
    assert (one.name, one.stored, one.permutation) == ("image", "x", (0, 2, 3, 1))
    assert one.shape == (1, 3, 24, 40)
    assert mapping_lines(made, file) == (
        "input 'image' is 'x' with its axis 1 last (NCHW as NHWC)",
    )  # fmt: skip


def test_a_cube_is_ambiguous_in_tflite_and_not_where_no_converter_moved_axes() -> None:
    cube = [spec("image", None, 8, 8, 8)]
    with pytest.raises(ModelError, match="cannot be told") as caught:
        onto_data(artifact([spec("x", 1, 8, 8, 8)], [], Format.TFLITE), cube)
    assert "its outputs tell" in caught.value.fix
    made = onto_data(artifact([spec("x", None, 8, 8, 8)], []), cube)
    assert made.inputs[0].permutation == ()


def test_inputs_of_another_kind_rank_or_size_are_refused_with_both_named() -> None:
    for own in (spec("x", None, 7), spec("x", None, 6, 1), spec("x", None, 6, dtype="int64")):
        with pytest.raises(ModelError, match="does not take") as caught:
            onto_data(artifact([own], []), [spec("data", None, 6)])
        assert "data: float32[?x6]" in caught.value.why
        assert str(own) in caught.value.why


def test_a_file_that_declares_nothing_takes_inputs_by_name_or_alone() -> None:
    unknown = [replace(spec("ids"), dtype="unknown"), replace(spec("mask"), dtype="unknown")]
    file = artifact(unknown, [], Format.TORCHSCRIPT)
    wanted = [spec("mask", None, 8, dtype="int64"), spec("ids", None, 8, dtype="int64")]
    made = onto_data(file, wanted)
    assert [one.name for one in made.inputs] == ["ids", "mask"]  # the file's order: it has no names
    assert made.inputs[0].shape == (None, 8)


def test_a_file_of_pixels_takes_what_the_samples_are_made_of() -> None:
    pixels = Pixels(factor=(0.5,), offset=(-1.0,))
    file = artifact([spec("x", 1, 8, 8, 1, dtype="uint8")], [])
    image = spec("image", None, 1, 8, 8)
    (one,) = onto_data(file, [replace(image, pixels=pixels)]).inputs
    assert (one.pixels, one.permutation) == (pixels, (0, 2, 3, 1))
    with pytest.raises(ModelError) as caught:
        onto_data(file, [image])
    assert "[preprocess]" in caught.value.fix
    # A file of floats is not given pixels, though they are known.
    (plain,) = onto_data(
        artifact([spec("x", 1, 1, 8, 8)], []), [replace(image, pixels=pixels)]
    ).inputs
    assert plain.pixels is None


SAMPLES = {"a": normal(4, 6), "b": normal(4, 6, seed=1)}
AB = [spec("a", None, 6), spec("b", None, 6)]
EXPECTED = [2 * SAMPLES["a"] - SAMPLES["b"]]


def test_outputs_tell_which_input_is_which() -> None:
    file = artifact([spec("u", None, 6), spec("v", None, 6)], [spec("o", None, 6)])
    run = runs(lambda u, v: [2 * v - u], SAMPLES)
    found = align_artifact(file, AB, [spec("y", None, 6)], EXPECTED, run)
    assert [(one.name, one.stored) for one in found.artifact.inputs] == [("b", "u"), ("a", "v")]
    assert found.sqnr == float("inf")
    assert found.artifact.outputs[0].stored == "o"


def test_where_no_mapping_gives_the_outputs_and_two_are_as_bad_nothing_is_guessed() -> None:
    file = artifact([spec("u", None, 6), spec("v", None, 6)], [spec("o", None, 6)])
    run = runs(lambda u, v: [np.cos(40 * u) + np.cos(40 * v)], SAMPLES)
    with pytest.raises(ModelError, match="cannot be told") as caught:
        align_artifact(file, AB, [spec("y", None, 6)], EXPECTED, run)
    assert "--data" in caught.value.fix


def test_a_mapping_that_the_runtime_refuses_is_passed_over_and_told_if_all_are() -> None:
    file = artifact([spec("u", None, 6), spec("v", None, 6)], [spec("o", None, 6)])
    good = runs(lambda u, v: [2 * v - u], SAMPLES)

    def picky(trial: Artifact) -> list[Array]:
        if trial.inputs[0].name == "a":
            raise DeviceError("refused")
        return good(trial)

    assert (
        align_artifact(file, AB, [spec("y", None, 6)], EXPECTED, picky).artifact.inputs[0].name
        == "b"
    )

    def never(trial: Artifact) -> list[Array]:
        raise DeviceError("refused")

    with pytest.raises(DeviceError, match="refused"):
        align_artifact(file, AB, [spec("y", None, 6)], EXPECTED, never)


def test_outputs_in_another_order_layout_and_name_become_the_references() -> None:
    image, scores = normal(4, 3, 8, 10), normal(4, 5, seed=1)
    outputs = [spec("p", None, 5), spec("q", None, 8, 10, 3), spec("r", None, 5)]
    file = artifact([spec("x", None, 6)], outputs)
    made = [normal(4, 5, seed=2), image.transpose(0, 2, 3, 1), scores]
    found = align_artifact(
        file, [spec("x", None, 6)], [spec("image", None, 3, 8, 10), spec("scores", None, 5)],
        [image, scores], lambda trial: made,
    )  # fmt: skip
    one, other = found.artifact.outputs
    assert (one.name, one.stored, one.permutation) == ("image", "q", (0, 2, 3, 1))
    assert (other.name, other.stored) == ("scores", "r")
    np.testing.assert_array_equal(canonical_output(one, made[1]), image)
    assert found.kept == (0, 1)


def test_an_output_that_one_file_lacks_is_left_out() -> None:
    scores = normal(4, 5)
    wanted = [spec("boxes", None, 4), spec("scores", None, 5)]
    file = artifact([spec("x", None, 6)], [spec("out", None, 5)])
    found = align_artifact(
        file, [spec("x", None, 6)], wanted, [normal(4, 4), scores], lambda trial: [scores]
    )
    assert found.kept == (1,)
    assert [one.name for one in found.artifact.outputs] == ["scores"]
    with pytest.raises(ModelError, match="none of its outputs"):
        align_artifact(
            file, [spec("x", None, 6)], wanted[:1], [normal(4, 4)], lambda trial: [scores]
        )


def test_softmax_and_argmax_at_the_end_are_seen() -> None:
    logits = normal(4, 5) * 3
    powers = np.exp(logits)
    heads = {"softmax": powers / powers.sum(1, keepdims=True), "argmax": logits.argmax(1)}
    for head, made in heads.items():
        file = artifact([spec("x", None, 6)], [spec("y", None, 5)])
        found = align_artifact(
            file, [spec("x", None, 6)], [spec("logits", None, 5)], [logits],
            lambda trial, made=made: [made],
        )  # fmt: skip
        assert found.artifact.outputs[0].head == head
        assert f"after {head}" in mapping_lines(found.artifact, file)[-1]
    # What is merely near probabilities, as of small logits all are, is none of them.
    quarter = np.full((4, 5), 0.25, np.float32)
    file = artifact([spec("x", None, 6)], [spec("y", None, 5)])
    found = align_artifact(
        file, [spec("x", None, 6)], [spec("logits", None, 5)], [logits / 100],
        lambda trial: [quarter],
    )  # fmt: skip
    assert found.artifact.outputs[0].head == ""
    # What is merely near the logits has no head.
    found = align_artifact(
        file, [spec("x", None, 6)], [spec("logits", None, 5)], [logits], lambda trial: [logits + 1]
    )
    assert found.artifact.outputs[0].head == ""


def test_pytorchs_outputs_go_by_their_place() -> None:
    one, other = normal(4, 5), normal(4, 5, seed=1)
    outputs = [spec("output_0", None, 5), spec("output_1", None, 5)]
    file = artifact([spec("x", None, 6)], outputs, Format.TORCHSCRIPT)
    wanted = [spec("a", None, 5), spec("b", None, 5)]
    found = align_artifact(
        file, [spec("x", None, 6)], wanted, [one, other], lambda trial: [other, one]
    )  # fmt: skip
    assert [each.stored for each in found.artifact.outputs] == ["#1", "#0"]
    assert mapping_lines(found.artifact, file) == (
        "output 'a' is 'output_1'", "output 'b' is 'output_0'"
    )  # fmt: skip
