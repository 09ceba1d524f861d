"""Set up every test process: one thread, fixed seeds, and the data outside of the repository.

The fast tier is every folder beside `full/`, and what plain `pytest` runs. The full tier adds
`tests/full`: `pytest tests --hypothesis-profile=full`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from filelock import FileLock

# Several test processes run at once: one thread each, in the programs that they start too.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Triton reads this at its first import: without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Timings are no test: a slow machine must not fail a property.
hypothesis.settings.register_profile("fast", max_examples=4, deadline=None, derandomize=True)
hypothesis.settings.register_profile("full", max_examples=20, deadline=None)
hypothesis.settings.load_profile("fast")

REPOSITORY = Path(__file__).resolve().parents[1]
ANIMALS = Path("datasets", "voc12_animals", "VOCdevkit", "VOC2012")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shared-root",
        type=Path,
        default=None,
        help="folder with datasets/, reference/ and weights/ for the tests marked `data` "
        "(default: $CRFRNN_SHARED, else ../shared beside the repository)",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; torch.cuda.is_available() is false here")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same random numbers in a test whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set the number of threads; what it was before comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


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


@pytest.fixture(scope="session")
def reference(shared_root: Path) -> Mapping[str, Any]:
    """The arrays of published implementations; skips where they are absent."""
    path = shared_root / "reference" / "crf_reference.npz"
    if not path.is_file():
        pytest.skip(f"no reference arrays at {path}")
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one trained tiny comparison: five arms, two seeds, and no page.

    All test processes share it: read it, and damage a copy (`shutil.copytree`).
    """
    from tests.train.world import tiny_recipe
    from train.arms import compare

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of the run, above that of this process
    run, done = base / "trained" / "run", base / "trained" / "done"
    with FileLock(base / "trained.lock"), pytest.MonkeyPatch.context() as patched:
        if not done.exists():
            # A run keeps its command, which is published without full paths.
            patched.setattr("sys.argv", ["train", "compare", "collage"])
            for page in ("write_report", "print_report"):  # it takes as long as the training
                patched.setattr(f"train.arms.{page}", lambda *_, **__: None)
            compare("collage", tiny_recipe(), run, resume=False)
            done.touch()
    return run
