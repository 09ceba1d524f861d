"""Scripts that measure: `python -m benchmarks.crf`, `filters`, `networks`, `gpu`, `kernels`."""

from __future__ import annotations
