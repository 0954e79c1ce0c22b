from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests import nets
from tests.structures import sequences, vision
from workbench.artifact import Artifact
from workbench.errors import RecipeError, StepError
from workbench.onnxgraph import rewrites, transformer, walk
from workbench.steps import FuseTransformer, Simplify

pytestmark = [
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

IDS = np.random.default_rng(0).integers(0, 500, (8, 32))
UNPADDED = nets.dataset_of(input_ids=IDS, attention_mask=np.ones((8, 32), np.int64))
PHOTOS = nets.dataset_of(image=nets.normal(8, 3, 64, 64))


def simplified(folder: Path, module: nn.Module, dataset: Any) -> Artifact:
    made = nets.exported(folder / "float", module, dataset)
    return Simplify().run(made, nets.context(folder / "simple", dataset))


def fused(subject: Artifact, dataset: Any, folder: Path, **options: Any) -> Artifact:
    return FuseTransformer(**options).run(subject, nets.context(folder / "fused", dataset))


def operators(path: Path) -> Counter[str]:
    return walk.operators(onnx.load(path).graph)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return simplified(tmp_path_factory.mktemp("bert"), sequences.bert(), UNPADDED)


def test_attention_and_gelu_become_one_operator_each(bert: Artifact, tmp_path: Path) -> None:
    before = operators(bert.path)
    made = fused(bert, UNPADDED, tmp_path)
    after = operators(made.path)
    assert after["com.microsoft:Attention"] == 2
    assert after["com.microsoft:Gelu"] == 2
    assert (after["Erf"], after["Softmax"], after["Gemm"]) == (0, 0, 0)
    assert f"{sum(before.values())} nodes fused to {sum(after.values())}: " in made.notes[-2]
    assert "2 Attention, 2 Gelu" in made.notes[-2]
    assert not any(note.startswith("attention stays in parts") for note in made.notes)
    assert made.history == (*bert.history, "fuse_transformer")
    assert made.inputs == bert.inputs


@pytest.mark.parametrize("kind", ["none", "behind", "before", "anywhere"])
def test_outputs_are_equal_for_every_mask(kind: str, bert: Artifact, tmp_path: Path) -> None:
    made = fused(bert, UNPADDED, tmp_path)
    masks = {
        "none": np.ones((8, 32)),
        "behind": np.arange(32) < np.arange(32, 8, -3)[:, None],
        "before": np.arange(32) >= np.arange(0, 24, 3)[:, None],
        "anywhere": np.random.default_rng(1).integers(0, 2, (8, 32)) | (np.arange(32) == 5),
    }
    mask = masks[kind].astype(np.int64)
    (expected,) = nets.run_onnx(bert.path, IDS, mask)
    (found,) = nets.run_onnx(made.path, IDS, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_mask_taken_for_a_length_is_caught_though_no_sample_shows_it(
    bert: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime.transformers.fusion_options import AttentionMaskFormat

    monkeypatch.setattr(AttentionMaskFormat, "AttentionMask", AttentionMaskFormat.MaskIndexEnd)
    with pytest.raises(StepError, match="outputs differ"):
        fused(bert, UNPADDED, tmp_path)


def as_loaded(path: Path, folder: Path) -> Counter[str]:
    """The operators after ONNX Runtime's own optimizations."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return operators(folder / "optimized.onnx")


@pytest.mark.parametrize("skip", [False, True])
def test_additions_are_fused_with_layer_normalization_only_where_asked(
    skip: bool, bert: Artifact, tmp_path: Path
) -> None:
    made = fused(bert, UNPADDED, tmp_path, skip_layer_norm=skip)
    for found in (operators(made.path), as_loaded(made.path, tmp_path)):
        assert (found["com.microsoft:SkipLayerNormalization"] > 0) == skip
    assert any("kept apart" in note for note in made.notes) != skip
    if not skip:  # ONNX Runtime would have fused them by itself
        assert as_loaded(bert.path, tmp_path)["com.microsoft:SkipLayerNormalization"] > 0


def test_a_vision_transformer_keeps_its_outputs(tmp_path: Path) -> None:
    subject = simplified(tmp_path, vision.vit(), PHOTOS)
    made = fused(subject, PHOTOS, tmp_path)
    assert operators(made.path)["com.microsoft:Gelu"] == 3
    assert any(note.startswith("attention stays in parts") for note in made.notes)
    images = nets.normal(3, 3, 64, 64, seed=7)
    expected, found = (nets.run_onnx(one.path, images)[0] for one in (subject, made))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_graph_without_such_patterns_is_handed_on_as_it_is(tmp_path: Path) -> None:
    subject = nets.exported(tmp_path / "float", nets.build(), nets.images())
    made = fused(subject, nets.images(), tmp_path)
    assert made.path.read_bytes() == subject.path.read_bytes()
    assert made.history == subject.history
    assert made.notes[-1].startswith("nothing to fuse")


def test_a_kind_that_fails_on_the_graph_is_named(
    bert: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime.transformers import optimizer

    def failing(*_: Any, **__: Any) -> None:
        raise AssertionError("no such pattern")

    monkeypatch.setattr(optimizer, "optimize_model", failing)
    with pytest.raises(StepError, match="as gpt2") as caught:
        fused(bert, UNPADDED, tmp_path / "one", model_type="gpt2")
    assert "no such pattern" in caught.value.why
    assert fused(bert, UNPADDED, tmp_path / "all").notes[-1].startswith("nothing to fuse")


def linear_file(shape: list[Any], first: list[int], second: list[int]) -> onnx.ModelProto:
    """x of a shape, reshaped, times [6, 4] plus [4], reshaped, to y."""
    nodes = [
        helper.make_node("Reshape", ["x", "first"], ["flat"], "in"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["product"], "gemm"),
        helper.make_node("Reshape", ["product", "second"], ["wide"], "out"),
        helper.make_node("Relu", ["wide"], ["y"], "relu"),
    ]
    shapes = {"first": np.asarray(first, np.int64), "second": np.asarray(second, np.int64)}
    weights = {"w": nets.normal(6, 4), "b": nets.normal(4, seed=1), **shapes}
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("shape", "first", "second", "reshapes"),
    [
        (["n", 5, 6], [-1, 6], [-1, 5, 4], 0),
        (["n", 5, 6], [-1, 6], [-1, 5, 2, 2], 1),  # heads are split
        (["n", 5, 2, 3], [-1, 6], [-1, 5, 4], 1),  # heads were merged
        ([2, 5, 6], [10, 6], [2, 5, 4], 0),
        (["n", 5, 6], [-1, 6], [-1, 4], 1),  # it stays a matrix
        (["n", 5, 6], [-1, 6], [0, 4], 2),  # a size taken from the matrix
        (["n", "t", 6], [-1, 6], [-1, 5, 4], 1),
        (["n", 5, 4, 3], [-1, 6], [-1, 5, 2, 2], 2),
    ],
)
def test_reshapes_around_a_linear_layer_go_where_nothing_needs_them(
    shape: list[Any], first: list[int], second: list[int], reshapes: int, tmp_path: Path
) -> None:
    model = linear_file(shape, first, second)
    onnx.save(model, tmp_path / "before.onnx")
    rewrites.products_of_gemms(model.graph)
    transformer.linear_layers(model)
    onnx.save(model, tmp_path / "after.onnx")
    found = operators(tmp_path / "after.onnx")
    assert (found["Reshape"], found["MatMul"], found["Gemm"]) == (reshapes, 1, 0)
    x = nets.normal(*[{"n": 2, "t": 5}.get(size, size) for size in shape], seed=2)
    before, after = (nets.run_onnx(tmp_path / f"{name}.onnx", x)[0] for name in ("before", "after"))
    assert before.shape == after.shape
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"model_type": "resnet"}, {"num_heads": -1}, {"skip_layer_norm": "yes"}]
)
def test_wrong_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        FuseTransformer(**options)
