"""What tests of the native CPU path need around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from crfrnn import cpu


@pytest.fixture
def _native() -> None:
    if cpu.library_path() is None:
        pytest.skip("the native library is not built: pip install -e . with a C++ compiler")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set the number of threads; what it was before comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
