"""Structured pruning: which channels go together, which of them go, and recovery without labels."""
