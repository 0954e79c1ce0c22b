"""Sweeps: many runs of a recipe with other options, and the front of what they trade."""
