"""A forked child works after its parent has used torch's threads; so does a pool of it.

The other ways to start a process are in tests/full/crfrnn/test_process_models.py.
"""

from __future__ import annotations

import multiprocessing
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import crfrnn
import crfrnn.densecrf as dcrf

HEIGHT, WIDTH, LABELS = 60, 50, 21
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
P = RNG.dirichlet(np.ones(LABELS), (HEIGHT, WIDTH)).transpose(2, 0, 1).astype(np.float32)


def refined(_: int = 0) -> npt.NDArray[Any]:
    result: npt.NDArray[Any] = crfrnn.refine(P, IMAGE)
    return result


def dropped_in(_: int = 0) -> npt.NDArray[Any]:
    d = dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    d.setUnaryEnergy(dcrf.unary_from_softmax(P))
    d.addPairwiseGaussian(sxy=3, compat=3)
    d.addPairwiseBilateral(sxy=80, srgb=13, rgbim=IMAGE, compat=10)
    return d.inference(3)


def layer(_: int = 0) -> npt.NDArray[Any]:
    unary, image = torch.from_numpy(P).log()[None], torch.from_numpy(IMAGE).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits: npt.NDArray[Any] = crfrnn.CrfRnn(LABELS)(unary, image).numpy()
    return logits


CALLS = [refined, dropped_in, layer]


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this platform"
)
@pytest.mark.timeout(60)
@pytest.mark.parametrize("call", CALLS)
def test_a_pool_forked_after_use(threads, call) -> None:
    threads(2)
    expected = call(0)
    torch.randn(1 << 22).exp()  # large enough for torch's own threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the test process
        with multiprocessing.get_context("fork").Pool(2) as pool:
            for answer in pool.map_async(call, range(3)).get(timeout=30):
                np.testing.assert_array_equal(answer, expected)
