from __future__ import annotations

import pytest

from tests.train.tiny import tiny_recipe
from tests.train.world import World
from train.recipe import Recipe


@pytest.fixture
def tiny() -> Recipe:
    """A recipe so small that a whole comparison takes seconds."""
    return tiny_recipe()


@pytest.fixture
def world(tiny, tmp_path) -> World:
    return World(tiny, tmp_path)
