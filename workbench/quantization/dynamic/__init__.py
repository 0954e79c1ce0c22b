"""INT8 weights without calibration: weight-only rewrites, and their accuracy budget."""
