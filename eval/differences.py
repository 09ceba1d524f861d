"""Two configurations side by side, for errors that say what changed."""

from __future__ import annotations

from typing import Any


def differences(found: Any, expected: Any, name: str = "") -> list[str]:
    """Where two nested dictionaries differ, by dotted name."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = [*expected, *(k for k in found if k not in expected)]
        return [
            line
            for key in keys
            for line in differences(found.get(key), expected.get(key), f"{name}.{key}".strip("."))
        ]
    same = found == expected or (
        isinstance(expected, list | tuple)
        and isinstance(found, list | tuple)
        and list(found) == list(expected)
    )
    return [] if same else [f"{name} was {found!r}, now {expected!r}"]
