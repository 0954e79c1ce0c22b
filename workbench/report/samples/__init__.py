"""Samples: code in C++, Kotlin and Swift that loads one artifact with its own tensors."""

from workbench.report.samples.generate import write_all

__all__ = ["write_all"]
