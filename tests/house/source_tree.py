"""The repository's own files, as the tests of this folder see them."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("crfrnn", "models", "data", "eval", "train")


def python_files(room: str) -> list[Path]:
    """Every module of a room (a top-level folder), sorted."""
    return sorted(path for path in repository_files(ROOT / room) if path.suffix == ".py")


def repository_files(folder: Path = ROOT) -> Iterator[Path]:
    """Every file below `folder` that .gitignore does not leave out.

    The tree is walked instead of asking git, so that a downloaded archive is tested like a clone.
    """
    patterns = [
        line.strip()
        for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    yield from _walk(folder, [".git", *patterns])


def _walk(folder: Path, patterns: list[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if any(_matches(path, pattern) for pattern in patterns):
            continue
        if path.is_dir():
            yield from _walk(path, patterns)
        else:
            yield path


def _matches(path: Path, pattern: str) -> bool:
    """The part of .gitignore's language that this repository uses: name globs, `dir/`, `/top/`."""
    if pattern.endswith("/") and not path.is_dir():
        return False
    if pattern.startswith("/") and path.parent != ROOT:
        return False
    return fnmatch(path.name, pattern.strip("/"))
