"""A repository with a study of stored results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eval.__main__ import main
from tests.eval.results.study import add, found_study


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study without runs, to work in."""
    monkeypatch.chdir(tmp_path)
    return found_study(tmp_path)


@pytest.fixture(scope="module")
def written(fake_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with the runs of a comparison, and its RESULTS.md; not to be modified."""
    root = found_study(tmp_path_factory.mktemp("written"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        add(fake_run.run_dir)
        main(["results", "write"])
    return root


@pytest.fixture
def published(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same again, to be damaged."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
