"""Who may import whom, and what a file may be called and weigh."""

from __future__ import annotations

import sys

import pytest

from tests.house.imports import imported_modules, imports_of, top
from tests.house.source_tree import ROOMS, ROOT, python_files

# The rooms that a room may import besides itself. Arrows point one way:
# train -> eval -> models -> crfrnn, and data is read by train and eval.
ALLOWED_ROOMS: dict[str, set[str]] = {
    "crfrnn": set(),
    "models": {"crfrnn"},
    "data": set(),
    "eval": {"models", "data", "crfrnn"},
    "train": {"eval", "models", "data", "crfrnn"},
}

# What the installed library may import besides the standard library.
LIBRARY_PACKAGES = {"torch", "numpy", "scipy"}

FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py"}
MAX_LINES = 300
# Files past MAX_LINES, each with the reason: {"room/file.py": "why one file reads better than two"}
LONG_FILES: dict[str, str] = {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import train.loop as loop", {"train.loop"}),
        ("from train import loop", {"train"}),
        ("def f():\n    if x:\n        from eval.metrics import Scorer", {"eval.metrics"}),
        ("from . import kernels", {"crfrnn.filtering"}),
        ("from ..kernels import bind", {"crfrnn.kernels"}),
        ("from ... import models", {""}),
        ("import importlib\nimportlib.import_module('eval')", {"importlib", "eval"}),
        ("__import__(name)", {"<computed: name>"}),
    ],
)
def test_imports_are_found_in_every_form(source, expected):
    assert imported_modules(source, "crfrnn.filtering") == expected


@pytest.mark.parametrize("room", ROOMS)
def test_room_exists(room):
    # Without files, the tests below would pass for want of anything to look at.
    assert python_files(room), f"{room}/ holds no Python file"


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_lower_rooms(room):
    forbidden = {*ROOMS, "tests", ""} - ALLOWED_ROOMS[room] - {room}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module or 'from above the repository root'}"
        for path in python_files(room)
        for module in sorted(imports_of(path))
        if top(module) in forbidden or module.startswith("<computed")
    ]
    assert not wrong, "\n".join(wrong)


def test_library_imports_torch_numpy_scipy_only():
    allowed = {"crfrnn", *LIBRARY_PACKAGES, *sys.stdlib_module_names}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in python_files("crfrnn")
        for module in sorted(imports_of(path))
        if top(module) not in allowed
        # What is in this folder is imported on first use.
        and not (top(module) == "triton" and path.parent.name == "triton_kernels")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_file_answers_to_its_name(room):
    wrong = [
        str(path.relative_to(ROOT)) for path in python_files(room) if path.name in FORBIDDEN_NAMES
    ]
    assert not wrong, f"name these files after what they hold: {wrong}"


@pytest.mark.parametrize("room", ROOMS)
def test_file_is_short_or_says_why(room):
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(room)
    }
    wrong = [
        f"{name} has {count} lines: split it, or give the reason in LONG_FILES"
        for name, count in lengths.items()
        if count > MAX_LINES and name not in LONG_FILES
    ]
    assert not wrong, "\n".join(wrong)


def test_long_files_are_still_long():
    stale = [
        name
        for name in LONG_FILES
        if not (ROOT / name).is_file()
        or len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    ]
    assert not stale, f"no longer past {MAX_LINES} lines, remove from LONG_FILES: {stale}"
