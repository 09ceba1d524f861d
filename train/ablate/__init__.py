"""Ablations: named changes of a recipe, each run on the same seeds, and the table of them."""

from __future__ import annotations
