"""Every example ends in a picture, the pages build strictly, and RESULTS.md follows from data."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from eval.results.command import Places, problems

ROOT = Path(__file__).parents[3]
PYTHONPATH = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
STEPS = {"weak_labels": "2", "layer_behind_torchvision": "2", "layer_behind_smp": "2"}
NEEDS = {"layer_behind_smp": "segmentation_models_pytorch"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_ends_in_a_picture(example: Path, tmp_path: Path) -> None:
    needed = NEEDS.get(example.stem)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    out = tmp_path / "picture.png"
    command = [sys.executable, str(example), str(out), *STEPS.get(example.stem, "").split()]
    environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": PYTHONPATH}
    subprocess.run(command, check=True, timeout=300, env=environment, cwd=tmp_path)
    with Image.open(out) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10


def test_the_notebooks_run(tmp_path: Path) -> None:
    for needed in ("jupytext", "nbclient", "ipykernel"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install '.[notebooks]'")
    command = [sys.executable, str(ROOT / "docs/notebooks.py"), str(tmp_path), "--run", "2"]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    subprocess.run(command, check=True, timeout=300, env=environment)
    for name in ("refine_photograph", "layer_behind_torchvision"):
        assert '"image/png"' in (tmp_path / f"{name}.ipynb").read_text(encoding="utf-8")


def test_the_pages_build_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, cwd=ROOT)
    assert (tmp_path / "index.html").exists()


def test_every_published_number_is_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert list(problems(Places())) == []
