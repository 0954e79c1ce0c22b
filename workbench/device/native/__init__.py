"""Measuring in the native runner: built for a device, sent there and run."""
