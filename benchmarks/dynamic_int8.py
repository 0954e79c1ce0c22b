"""Dynamic INT8 of a BERT-like encoder against FP32 ONNX: speed, size of the weights, cosine.

Six layers, 384 wide, 12 heads, 128 tokens of a vocabulary of 30,522, batch 1, one thread; through
the steps of the recipe mobile-dynamic-int8, measured as `wb` measures, in fresh processes taken in
turns. The aims: at least 1.5 times faster, 3 times smaller, cosine 0.999. The weights are random,
as large as a trained BERT's (standard deviation width^-0.5), which is harder than BERT's own
initialisation (0.02). The cosine is of the last hidden states, over all samples and of the worst.
"""

from __future__ import annotations

import math
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import nets  # noqa: E402
from tests.structures.sequences import Bert  # noqa: E402
from workbench.artifact import Artifact  # noqa: E402
from workbench.device import profile  # noqa: E402
from workbench.device.session import infer_each, open_session  # noqa: E402 # noqa: E402
from workbench.measure.host import latencies  # noqa: E402
from workbench.measure.latency import PRESETS, Latency, speedup  # noqa: E402
from workbench.steps import Export, FuseTransformer, QuantizeDynamic, Simplify  # noqa: E402

WORDS, LENGTH, WIDTH, DEPTH, HEADS, SAMPLES = 30_522, 128, 384, 6, 12, 16


class Encoder(Bert):
    """Token ids [N, T] and a mask [N, T] to hidden states [N, T, 384]."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1])
        x = self.norm(self.words(input_ids) + self.places(places))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, mask)
        return x


def weights(artifact: Artifact) -> int:
    """Bytes of a file's tensors."""
    return sum(
        onnx.numpy_helper.to_array(tensor).nbytes
        for tensor in onnx.load(artifact.path).graph.initializer
    )


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def main() -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    module = Encoder(WORDS, LENGTH, WIDTH, DEPTH, HEADS).eval()
    generator = np.random.default_rng(0)
    lengths = generator.integers(LENGTH // 4, LENGTH + 1, SAMPLES)
    lengths[0] = LENGTH
    data = nets.dataset_of(
        input_ids=generator.integers(0, WORDS, (SAMPLES, LENGTH)),
        attention_mask=(np.arange(LENGTH) < lengths[:, None]).astype(np.int64),
    )
    device = profile.load("cpu")
    with tempfile.TemporaryDirectory(prefix="wb-dynamic-") as scratch:

        def context(name: str) -> nets.Context:
            return nets.context(Path(scratch) / name, data, device=device)

        exported = Export().run(nets.model_of(module, data), context("export"))
        base = Simplify().run(exported, context("simplify"))
        fused = FuseTransformer().run(base, context("fuse"))
        files = {
            "FP32 ONNX": base,
            "dynamic INT8": QuantizeDynamic().run(fused, context("int8")),
            "  not fused": QuantizeDynamic().run(base, context("plain")),
        }
        samples = data.examples(SAMPLES)
        inputs = data.examples(1)
        timed = latencies(files, inputs, device, PRESETS["standard"], lambda *_: None)
        outputs = {
            name: infer_each(open_session(one, threads=0), samples)[0]
            for name, one in files.items()
        }
        before = timed["FP32 ONNX"]
        assert isinstance(before, Latency), before
        print(f"{'':14}{'median ms':>10}{'× faster [95 %]':>22}{'weights':>11}{'× smaller':>11}"
              f"{'cosine':>10}{'worst':>10}")  # fmt: skip
        for name, file in files.items():
            latency, size = timed[name], weights(file)
            assert isinstance(latency, Latency), latency
            ratio = speedup(before, latency)
            faster = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
            found = outputs[name]
            each = min(cosine(a, b) for a, b in zip(found, outputs["FP32 ONNX"], strict=True))
            print(
                f"{name:14}{latency.median.value:10.2f}{faster:>22}{size / 1e6:8.2f} MB"
                f"{weights(base) / size:11.2f}{cosine(found, outputs['FP32 ONNX']):10.5f}"
                f"{each:10.5f}"
            )


if __name__ == "__main__":
    main()
