"""ONNX graphs: signature, walking, rewriting, the view that passes work on, sessions."""
