"""Who may import whom, and what no file may be called."""

from __future__ import annotations

import pytest

from tests.house.source_tree import ROOMS, ROOT, imports_of, python_files, top

# The rooms that a room may import besides itself. Arrows point one way:
# train -> eval -> runtime -> models -> crfrnn, and data is read by train, eval and runtime.
# benchmarks are scripts: they import anything, and tests alone import them.
ALLOWED_ROOMS: dict[str, set[str]] = {
    "crfrnn": set(),
    "models": {"crfrnn"},
    "data": set(),
    "runtime": {"models", "data", "crfrnn"},
    "eval": {"runtime", "models", "data", "crfrnn"},
    "train": {"eval", "runtime", "models", "data", "crfrnn"},
    "benchmarks": {"train", "eval", "runtime", "models", "data", "crfrnn"},
}

FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_lower_rooms(room):
    assert python_files(room), f"{room}/ holds no Python file"
    forbidden = {*ROOMS, "tests", "<relative>"} - ALLOWED_ROOMS[room] - {room}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in python_files(room)
        for module in sorted(imports_of(path))
        if top(module) in forbidden
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_a_file_is_named_after_what_it_holds(room):
    names = [path.relative_to(ROOT) for path in python_files(room)]
    assert not [str(name) for name in names if name.name in FORBIDDEN_NAMES]
