from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.world import World, tiny_recipe
from train.arms import Comparison
from train.recipe import Recipe


@pytest.fixture
def tiny() -> Recipe:
    """A recipe so small that a whole comparison takes seconds."""
    return tiny_recipe()


@pytest.fixture
def world(tiny, tmp_path) -> World:
    return World(tiny, tmp_path)


@pytest.fixture
def goes_on(tiny, trained_run, tmp_path) -> Callable[..., Comparison]:
    """Make a comparison of the tiny recipe, changed, whose start is that of `trained_run`.

    With `arms=(...)` further arms of it, as "unary-seed0"; in a folder of its own.
    """

    def make(folder: str = "run", arms: tuple[str, ...] = (), **changes: Any) -> Comparison:
        out: Path = tmp_path / folder
        for name in {"start-seed0", *arms}:
            shutil.copytree(trained_run / "arms" / name, out / "arms" / name)
        return Comparison("collage", replace(tiny, **changes), out, resume=True)

    return make
