"""Speed and memory of the CRF layer beside its plain path and every peer that is importable."""

from __future__ import annotations

from eval.benchmark.options import BenchmarkOptions
from eval.benchmark.run import benchmark

__all__ = ["BenchmarkOptions", "benchmark"]
