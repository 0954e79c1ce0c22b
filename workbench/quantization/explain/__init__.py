"""What quantization did and why: evidence, the waterfall, the sensitivity table."""
