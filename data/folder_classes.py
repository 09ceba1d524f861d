"""The file that names the classes of a user's own data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.labels import check_scored
from data.sample import VOID

_EXAMPLE = '{"names": ["ground", "tree"], "void": 255}'


@dataclass(frozen=True)
class FolderClasses:
    """What classes.json says.

    Attributes:
        names: of the class ids 0, 1, ...
        void: the id of pixels without a label, as the masks store it.
        colours: RGB in 0..255 of every class, or none for those of VOC.
        scored: names of the classes whose IoU is averaged; empty for all.
    """

    names: tuple[str, ...]
    void: int
    colours: tuple[tuple[int, int, int], ...]
    scored: tuple[str, ...]


def read_classes(path: Path) -> FolderClasses:
    """Read and check classes.json: a list of names, or an object with more.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is malformed; the message says where and what is expected.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {path}; expected {_EXAMPLE}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); expected {_EXAMPLE}") from error
    try:
        return _checked({"names": values} if isinstance(values, list) else values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _checked(values: Any) -> FolderClasses:
    known = ("names", "void", "colours", "scored")
    if not isinstance(values, dict) or "names" not in values:
        raise ValueError(f"expected an object with names, such as {_EXAMPLE}")
    unknown = sorted(values.keys() - set(known))
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}; expected some of {', '.join(known)}")
    names = _strings("names", values["names"])
    if not names or len(set(names)) != len(names):
        raise ValueError(f"names must be at least one and distinct, got {list(names)}")
    if len(names) > VOID:
        raise ValueError(f"names must be at most {VOID}, got {len(names)}")
    void = values.get("void", VOID)
    if not _is_byte(void) or void < len(names):
        raise ValueError(
            f"void must be an id of {len(names)}..255, beyond those of the classes; got {void!r}"
        )
    colours = values.get("colours", [])
    whole = isinstance(colours, list) and len(colours) in (0, len(names))
    if not whole or not all(_is_colour(colour) for colour in colours):
        raise ValueError(
            f"colours must be {len(names)} times [red, green, blue] of 0..255, got {colours!r}"
        )
    scored = _strings("scored", values.get("scored", []))
    check_scored(scored, names)
    return FolderClasses(names, void, tuple((r, g, b) for r, g, b in colours), scored)


def _strings(field: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
        raise ValueError(f"{field} must be a list of names, got {value!r}")
    return tuple(value)


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _is_colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_byte(v) for v in value)
