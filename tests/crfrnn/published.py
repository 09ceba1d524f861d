"""The cases of crf_reference.npz: arrays of published implementations, and their settings."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = np.load(Path(__file__).parent / "crf_reference.npz")
META = dict(line.split(": ", 1) for line in REFERENCE["meta"].tolist())
IMAGES = [name for name in META if f"{name}/image" in REFERENCE and name != "crfasrnn"]


def settings(name: str) -> dict[str, Any]:
    """What an image of IMAGES was computed with, by name: numbers, lists and words."""
    pairs = re.findall(r"(\w+)=(\[\[.*?\]\]|\[.*?\]|[\w.]+)", META[name])
    return {key: ast.literal_eval(v) if v[0] in "[0123456789" else v for key, v in pairs}
