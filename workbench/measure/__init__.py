"""Measuring: pure statistics (`latency`, `accuracy`, `parity`) apart from the running (`run`)."""
