"""The properties of the fast tier for the filters that cost the square of the pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.crfrnn import test_properties as fast
from tests.crfrnn.test_properties import FILTERS, Case


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("filters", FILTERS, ids="-".join)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_one_image_after_the_other(filters: tuple[str, str], dtype: torch.dtype) -> None:
    fast.test_a_batch_is_one_image_after_the_other(filters=filters, dtype=dtype)


@pytest.mark.parametrize("learn_theta", [False, True])
@pytest.mark.parametrize(
    ("filters", "case"),
    [
        (FILTERS[2], Case(shape=(24, 23), num_labels=21, batch=1, normalization="before")),
        (FILTERS[3], Case(shape=(5, 6, 7), num_labels=5, normalization="none")),
    ],
)
def test_the_number_of_threads_does_not_show(
    filters: tuple[str, str], learn_theta: bool, case: Case, threads: Callable[[int], None]
) -> None:
    fast.test_the_number_of_threads_does_not_show(filters, learn_theta, case, threads)
