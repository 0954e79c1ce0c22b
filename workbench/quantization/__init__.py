"""INT8 that keeps its accuracy: ranges, equalization, rounding, bias correction, placement.

NumPy and ONNX values in, values out; `engine` orders the techniques as a preset says.
"""
