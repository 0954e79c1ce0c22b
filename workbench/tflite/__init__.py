"""ONNX to TFLite: everything behind the step ToTflite."""
