"""A run: its folder, checkpoints, processes and provenance, whoever makes or reads it."""

from __future__ import annotations
