"""One peer on one network, in a process of its own, under whatever Python has the peer.

    python benchmarks/ptq_peer.py PEER MODEL.onnx SAMPLES.npz OUT.onnx KIND

SAMPLES.npz holds calibration arrays by input name; KIND is `cnn` or `transformer`. It needs numpy,
onnx and the peer's package, nothing of the workbench. The last line is JSON: the procedure's
seconds, imports not counted, and the version.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Samples = list[dict[str, Any]]  # each of one sample


def ort_static(method: str, per_channel: bool, u8s8: bool) -> Callable[..., None]:
    """onnxruntime's quantize_static after its own preprocessing.

    Percentile is not symmetric, and entropy has 2,048 bins: with its defaults, of a range (-t, t)
    where ReLU uses half and of 128 bins with one candidate, both do worse.
    """
    import onnxruntime.quantization.quantize as module
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantType,
        create_calibrator,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self, samples: Samples) -> None:
            self.left: Iterator[dict[str, Any]] = iter(samples)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    def run(model: str, samples: Samples, out: str, _kind: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            ready = str(Path(scratch) / "ready.onnx")
            # Its symbolic shape inference fails on some graphs; onnx's own is run all the same.
            quant_pre_process(model, ready, skip_symbolic_shape=True)
            activation = QuantType.QUInt8 if u8s8 else QuantType.QInt8
            bins = {"num_bins": 2048} if method == "Entropy" else {}
            symmetric = {"CalibTensorRangeSymmetric": False} if method == "Percentile" else {}

            def calibrator(*arguments: Any, extra_options: dict[str, Any], **named: Any) -> Any:
                return create_calibrator(
                    *arguments, extra_options={**extra_options, **bins}, **named
                )

            module.create_calibrator = calibrator
            quantize_static(
                ready, out, Reader(samples), per_channel=per_channel, activation_type=activation,
                weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod[method],
                extra_options=symmetric,
            )  # fmt: skip

    return run


def ort_dynamic() -> Callable[..., None]:
    """onnxruntime's quantize_dynamic, per channel: what is common for BERT on a CPU."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def run(model: str, _samples: Samples, out: str, _kind: str) -> None:
        quantize_dynamic(model, out, per_channel=True, weight_type=QuantType.QInt8)

    return run


def nncf_preset(preset: str, fast: bool) -> Callable[..., None]:
    """NNCF on ONNX: bias correction by one pass over statistics, or layer by layer."""
    import nncf  # type: ignore[import-not-found]
    import onnx

    def run(model: str, samples: Samples, out: str, kind: str) -> None:
        made = nncf.quantize(
            onnx.load(model), nncf.Dataset(samples), preset=nncf.QuantizationPreset[preset],
            fast_bias_correction=fast, subset_size=len(samples),
            model_type=nncf.ModelType.TRANSFORMER if kind == "transformer" else None,
        )  # fmt: skip
        onnx.save(made, out)

    return run


def aimet(adaround: int = 0) -> Callable[..., None]:
    """AIMET: cross-layer equalization, SQNR ranges, per channel; AdaRound of `adaround` steps."""
    import aimet_onnx  # type: ignore[import-not-found]
    import onnx
    from aimet_onnx.common.quantsim_config import utils  # type: ignore[import-not-found]
    from aimet_onnx.cross_layer_equalization import (  # type: ignore[import-not-found]
        equalize_model,
    )

    def run(model: str, samples: Samples, out: str, kind: str) -> None:
        loaded = onnx.load(model)
        if kind == "cnn":
            slopes = leaky_to_prelu(loaded)
            equalize_model(loaded)
            prelu_to_leaky(loaded, slopes)
        sim = aimet_onnx.QuantizationSimModel(
            loaded, quant_scheme="tf_enhanced", param_type="int8", activation_type="int8",
            config_file=utils.get_path_for_per_channel_config(),
        )  # fmt: skip
        if adaround:
            aimet_onnx.apply_adaround(sim, samples, adaround)
        sim.compute_encodings(samples)
        onnx.save(sim.to_onnx_qdq(prequantize_constants=True, export_int32_bias=True), out)

    return run


def leaky_to_prelu(model: Any) -> dict[str, float]:
    """LeakyRelu as PRelu, in place: AIMET equalizes through the latter alone. Slopes by output."""
    import onnx

    slopes = {}
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            name, slope = node.output[0], node.attribute[0].f if node.attribute else 0.01
            slopes[name] = slope
            value = np.full(1, slope, np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, f"{name}_slope"))
            node.op_type = "PRelu"
            node.input.append(f"{name}_slope")
            del node.attribute[:]
    return slopes


def prelu_to_leaky(model: Any, slopes: dict[str, float]) -> None:
    """Undo `leaky_to_prelu`, in place."""
    import onnx

    for node in model.graph.node:
        if node.op_type == "PRelu" and node.output[0] in slopes:
            node.op_type = "LeakyRelu"
            node.attribute.append(onnx.helper.make_attribute("alpha", slopes[node.output[0]]))
            del node.input[1:]
    kept = [one for one in model.graph.initializer if one.name[: -len("_slope")] not in slopes]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


PEERS: dict[str, tuple[str, Callable[[], Callable[..., None]]]] = {
    "ort-minmax-tensor": ("onnxruntime", lambda: ort_static("MinMax", False, False)),
    "ort-minmax-channel": ("onnxruntime", lambda: ort_static("MinMax", True, True)),
    "ort-percentile": ("onnxruntime", lambda: ort_static("Percentile", True, True)),
    "ort-entropy": ("onnxruntime", lambda: ort_static("Entropy", True, True)),
    "ort-dynamic": ("onnxruntime", ort_dynamic),
    "nncf-performance": ("nncf", lambda: nncf_preset("PERFORMANCE", True)),
    "nncf-mixed": ("nncf", lambda: nncf_preset("MIXED", True)),
    "nncf-performance-full": ("nncf", lambda: nncf_preset("PERFORMANCE", False)),
    "nncf-mixed-full": ("nncf", lambda: nncf_preset("MIXED", False)),
    "aimet-cle": ("aimet_onnx", aimet),
    "aimet-adaround": ("aimet_onnx", lambda: aimet(1000)),
}


def main() -> None:
    name, model, arrays, out, kind = sys.argv[1:]
    with np.load(arrays) as found:
        whole = {key: found[key] for key in found}
    count = len(next(iter(whole.values())))
    samples = [{key: value[i : i + 1] for key, value in whole.items()} for i in range(count)]
    package, prepare = PEERS[name]
    np.random.seed(0)
    procedure = prepare()
    began = time.perf_counter()
    procedure(model, samples, out, kind)
    seconds = time.perf_counter() - began
    version = getattr(sys.modules[package], "__version__", "")
    print(json.dumps({"seconds": seconds, "version": version}))


if __name__ == "__main__":
    main()
