"""A finished comparison made of nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.eval.fake_run import FakeRun, FakeScenes, make_run


@pytest.fixture(scope="session")
def fake_run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """A comparison of five arms and two seeds on eight small scenes; not to be modified."""
    return make_run(tmp_path_factory.mktemp("fake") / "demo", FakeScenes())


@pytest.fixture
def run_copy(fake_run: FakeRun, tmp_path: Path) -> Path:
    """The folder of `fake_run` again, to be damaged."""
    return Path(shutil.copytree(fake_run.run_dir, tmp_path / "demo"))
