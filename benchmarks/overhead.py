"""`wb` against a bare script that calls torch and onnxruntime directly, for the same work.

Export, simplify, static INT8 with the same samples, and accuracy of FP32 and INT8 on the same
evaluation images; no TFLite, no latency. `wb` runs it as a recipe of its own with an empty cache,
and measures latency in its quick form besides, which is timed apart and taken off. `wb` also scores
PyTorch eager, its reference; so two ratios are printed, against the script without and with that.
The aim is at most 1.5. On ../shared/data where it is there, else on the digits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
WB = str(Path(sys.executable).parent / "wb")

RECIPE = '''"""Export, simplify, INT8: what a bare script does."""
from workbench.recipe import Recipe
from workbench.steps import Export, QuantizeStatic, Simplify
recipe = Recipe(Export(opset=17), Simplify(), branches={"int8": (QuantizeStatic(),)})
'''

BARE = """
import sys, numpy as np, torch, onnx, onnxsim, onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from workbench import dataset
from workbench.model import ModelSource
from workbench.sources.user_factory import build
from pathlib import Path

spec, weights, data, folder = sys.argv[1:]
source = ModelSource(spec=spec, weights=Path(weights))
net, _ = build(source)
samples = dataset.load(data)
example = torch.from_numpy(samples.examples(2)["input"])
torch.onnx.export(net, (example,), f"{folder}/m.onnx", opset_version=17, dynamo=False,
                  input_names=["input"], output_names=["output"],
                  dynamic_axes={"input": {0: "b"}, "output": {0: "b"}})
simple, _ = onnxsim.simplify(onnx.load(f"{folder}/m.onnx"))
onnx.save(simple, f"{folder}/s.onnx")
quant_pre_process(f"{folder}/s.onnx", f"{folder}/p.onnx", skip_symbolic_shape=True)

class Reader:
    def __init__(self):
        self.batches = samples.calibration.batches(8)
    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else batch.inputs

quantize_static(f"{folder}/p.onnx", f"{folder}/q.onnx", Reader(), per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
import time
began = time.perf_counter()
with torch.inference_mode():
    for b in samples.evaluation.batches(16):
        net(torch.from_numpy(b.inputs["input"])).argmax(1)
print("eager", time.perf_counter() - began)
for name in ("s", "q"):
    session = ort.InferenceSession(f"{folder}/{name}.onnx", providers=["CPUExecutionProvider"])
    hits = sum(int((session.run(None, b.inputs)[0].argmax(1) == b.labels).sum())
               for b in samples.evaluation.batches(16))
    print(name, hits / len(samples.evaluation))
"""

IMAGES = """source = "images"
path = "{path}"
[preprocess]
resize = 256
crop = 224
scale = 255
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
layout = "NCHW"
[split]
calibration = 300
evaluation = 700
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if SHARED.is_dir():
            model = SHARED / "mobilenetv1-025"
            spec, weights = f"{model}/model.py:build", str(model / "weights.pt")
            data = folder / "imagenet.toml"
            data.write_text(IMAGES.format(path=SHARED / "imagenet-sample"))
        else:
            import workbench.digits
            from workbench import library

            package = Path(str(workbench.digits.__file__)).parent
            spec, weights = "workbench.digits.model:build", str(package / "weights.safetensors")
            data = library.find("calibration", "digits")
        recipe = folder / "bare.py"
        recipe.write_text(RECIPE)
        started = time.perf_counter()
        bare = [sys.executable, "-c", BARE, spec, weights, str(data), name]
        printed = subprocess.run(bare, check=True, capture_output=True, text=True).stdout
        with_eager = time.perf_counter() - started
        said = dict(line.split() for line in printed.strip().splitlines())
        bare_seconds = with_eager - float(said["eager"])
        started = time.perf_counter()
        command = [WB, "recipe", str(recipe), "--model", spec, "--weights", weights, "--data",
                   str(data), "--quick", "--out", str(folder / "run"), "--json"]  # fmt: skip
        cache = folder / "cache"
        environment = {**os.environ, "WB_CACHE": str(cache)}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        whole = time.perf_counter() - started
        latency = json.loads((cache / "timings.json").read_text())["latency"]
        print(f"top-1: FP32 {float(said['s']):.4f}, INT8 {float(said['q']):.4f}")
        print(f"bare script {bare_seconds:6.1f} s, {with_eager:.1f} s with PyTorch eager scored")
        print(f"wb          {whole - latency:6.1f} s (and {latency:.1f} s of latency measuring)")
        print(
            f"ratio       {(whole - latency) / bare_seconds:.2f}, "
            f"{(whole - latency) / with_eager:.2f} with eager"
        )


if __name__ == "__main__":
    main()
