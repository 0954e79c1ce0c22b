"""FuseTransformer: attention, LayerNormalization and Gelu as one operator each."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from workbench.artifact import Artifact, Format
from workbench.errors import StepError
from workbench.options import Between, validate
from workbench.recipe import Context, Step

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


# How the optimizer's kinds of models look for attention; each finds what the others do not.
KINDS = ("bert", "gpt2", "bart", "clip")
FUSED = ("Attention", "MultiHeadAttention", "LayerNormalization", "SkipLayerNormalization",
         "SimplifiedLayerNormalization", "Gelu", "FastGelu", "BiasGelu", "QuickGelu",
         "RotaryEmbedding")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FuseTransformer(Step):
    """ONNX to an equal ONNX with ONNX Runtime's operators for transformers (com.microsoft).

    model_type: how attention is looked for; `auto` tries several and keeps the smallest graph.
    num_heads, hidden_size: 0 reads them off the graph. skip_layer_norm: fuse the addition in front
    of LayerNormalization too; good on GPUs, and 7 times slower than apart on a CPU. rtol, atol:
    allowed difference of every output element on real samples.
    """

    model_type: Literal["auto", "bert", "gpt2", "bart", "clip", "vit", "t5", "conformer"] = "auto"
    num_heads: Annotated[int, Between(0)] = 0
    hidden_size: Annotated[int, Between(0)] = 0
    skip_layer_norm: bool = False
    rtol: Annotated[float, Between(0, 1)] = 1e-3
    atol: Annotated[float, Between(0)] = 1e-4

    name: ClassVar[str] = "fuse_transformer"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.ONNX
    needs_data: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 5

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.onnx`. Raises StepError where the outputs differ.

        A graph without anything to fuse is passed on as it is, and the notes say so.
        """

        import onnx

        from workbench.onnxgraph import rewrites, signature, transformer, walk

        model = onnx.load(subject.path)
        before = walk.operators(model.graph)
        rewrites.name_nodes(model.graph)
        rewrites.settle_constants(model.graph)
        rewrites.products_of_gemms(model.graph)
        transformer.linear_layers(model)
        transformer.single_unsqueezes(model.graph)
        best: onnx.ModelProto | None = None
        kinds = KINDS if self.model_type == "auto" else (self.model_type,)
        for number, kind in enumerate(kinds):
            context.progress(0.1 + 0.6 * number / len(kinds), kind)
            fused = self._fused(model, kind)
            if fused is not None and (best is None or _nodes(fused) < _nodes(best)):
                best = fused
        path = context.folder / "model.onnx"
        counts = walk.operators(best.graph) if best is not None else before
        gained = _gained(before, counts)
        if best is None or not gained:
            shutil.copyfile(subject.path, path)
            note = (
                f"nothing to fuse: no attention, LayerNormalization or Gelu in {_sum(before)} nodes"
            )
            return replace(subject, path=path, companions=(), notes=(*subject.notes, note))
        if all(opset.domain != "com.microsoft" for opset in best.opset_import):
            best.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        separate = 0 if self.skip_layer_norm else transformer.split_norms(best.graph)
        rewrites.share(best.graph)
        onnx.save(best, path)
        inputs, outputs = signature.signature(best, (*subject.inputs, *subject.outputs))
        notes = [f"{_sum(before)} nodes fused to {_sum(counts)}: {gained}"]
        if counts["Softmax"] and "Attention" not in gained:
            notes.append("attention stays in parts: ONNX Runtime's patterns do not know its form")
        if separate:
            notes.append(f"{separate} additions before LayerNormalization kept apart from it")
        artifact = replace(
            subject,
            path=path,
            inputs=inputs,
            outputs=outputs,
            companions=(),
            history=(*subject.history, self.name),
            notes=(*subject.notes, *notes),
        )
        context.progress(0.8, "comparing on real samples")
        self._check(subject, artifact, context)
        return artifact

    def _fused(self, model: onnx.ModelProto, kind: str) -> onnx.ModelProto | None:
        """What the optimizer makes of a copy of the model; None where it fails on this graph."""
        import onnx
        from onnxruntime.transformers import optimizer
        from onnxruntime.transformers.fusion_options import AttentionMaskFormat, FusionOptions

        options = FusionOptions(kind)
        # The kinds' own choices are lengths, right for padding at the end alone, and no mask.
        options.attention_mask_format = AttentionMaskFormat.AttentionMask
        options.enable_skip_layer_norm = self.skip_layer_norm
        options.enable_bias_skip_layer_norm = self.skip_layer_norm
        # Tables stay Gather's and biases the products': there they can be quantized.
        options.enable_embed_layer_norm = False
        options.enable_bias_gelu = False
        original = onnx.ModelProto()
        original.CopyFrom(model)
        original.producer_name = "pytorch"  # it warns of others, and looks for the same patterns
        try:
            fused: onnx.ModelProto = optimizer.optimize_model(
                original, kind, self.num_heads, self.hidden_size, options, opt_level=0
            ).model
        except Exception as error:  # each kind expects its own graphs, and asserts on others
            if self.model_type == "auto":
                return None
            raise StepError(
                f"onnxruntime cannot fuse the graph as {kind}",
                f"{type(error).__name__}: {error}",
                "leave fuse_transformer.model_type at auto",
            ) from error
        return fused

    def _check(self, subject: Artifact, artifact: Artifact, context: Context) -> None:
        from workbench import parity
        from workbench.device.session import outputs_of

        examples = context.dataset.examples(4, context.seed)
        for inputs in (examples, _other_masks(examples, context.seed)):
            expected, outputs = (outputs_of(file, inputs) for file in (subject, artifact))
            parity.check(self.name, expected, outputs, self.rtol, self.atol)


def _other_masks(examples: Mapping[str, NDArray[Any]], seed: int) -> dict[str, NDArray[Any]]:
    """The inputs with integers of zeros and ones drawn anew, the first of each row one.

    Samples that all end in padding, or have none, would not show that a mask was lost or taken for
    a length.
    """

    import numpy as np

    generator = np.random.default_rng(seed)
    changed = dict(examples)
    for name, array in examples.items():
        if array.dtype.kind in "iub" and array.ndim == 2 and np.isin(array, (0, 1)).all():
            drawn = generator.integers(0, 2, array.shape).astype(array.dtype)
            drawn[:, :1] = 1
            changed[name] = drawn
    return changed


def _nodes(model: onnx.ModelProto) -> int:
    from workbench.onnxgraph import walk

    return _sum(walk.operators(model.graph))


def _sum(counts: Counter[str]) -> int:
    return sum(counts.values())


def _gained(before: Counter[str], after: Counter[str]) -> str:
    """`6 Attention, 6 Gelu`: the fused operators that are there now and were not before."""

    from workbench.onnxgraph import walk

    gained: Counter[str] = Counter()
    for name, count in after.items():
        plain = name.rpartition(":")[2]
        if plain in FUSED and count > before[name]:
            gained[plain] += count - before[name]
    return walk.describe_counts(gained)
