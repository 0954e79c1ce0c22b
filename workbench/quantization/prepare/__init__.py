"""The float graph made ready for quantization, each pass checked."""
