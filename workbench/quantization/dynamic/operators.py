"""Which operators dynamic INT8 takes."""

# By operator, which of its inputs are weights.
WEIGHT_INPUTS = {"MatMul": (1,), "Attention": (1,), "LSTM": (1, 2), "GRU": (1, 2)}
INTEGER_KERNELS = ("MatMul", "LSTM", "Attention")  # what onnxruntime has dynamic INT8 kernels for
