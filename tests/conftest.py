"""What every room's tests may need from outside the repository, and how they do without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Triton reads this at its first import: without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

REPOSITORY = Path(__file__).resolve().parents[1]
ANIMALS = Path("datasets", "voc12_animals", "VOCdevkit", "VOC2012")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shared-root",
        type=Path,
        default=None,
        help="folder with datasets/ and weights/ for the tests marked `data` "
        "(default: $CRFRNN_SHARED, else ../shared beside the repository)",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; torch.cuda.is_available() is false here")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same random numbers in a test whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_root(pytestconfig: pytest.Config) -> Path:
    """The folder of real data and weights; skips where it is absent (mark the test `data`)."""
    given: Path | None = pytestconfig.getoption("--shared-root")
    root = given or Path(os.environ.get("CRFRNN_SHARED", REPOSITORY.parent / "shared"))
    if not root.is_dir():
        pytest.skip(f"no shared data at {root}; pass --shared-root or set CRFRNN_SHARED")
    return root.resolve()


@pytest.fixture(scope="session")
def voc_animals_root(shared_root: Path) -> Path:
    """The VOC2012 folder of the animal subset; skips where it is absent."""
    root = shared_root / ANIMALS
    if not root.is_dir():
        pytest.skip(f"no VOC animal subset at {root}")
    return root
