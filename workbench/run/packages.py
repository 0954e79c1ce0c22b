"""The packages whose versions a report names."""

PACKAGES = (
    "torch", "onnx", "onnxruntime", "onnxsim", "tensorflow", "onnx2tf", "ai-edge-litert", "numpy",
)  # fmt: skip
