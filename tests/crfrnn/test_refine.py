"""One call on NumPy arrays: what `CrfRnn` computes, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from crfrnn import CrfRnn, refine

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
P = RNG.dirichlet(np.ones(3), (5, 7)).transpose(2, 0, 1)


# errors: those of the arrays themselves are in test_densecrf.py


@pytest.mark.parametrize(
    ("probabilities", "image", "options", "error", "words"),
    [
        (np.moveaxis(P, 0, -1), IMAGE, {}, ValueError, r"labels first.*moveaxis\(prob"),
        (P[0], IMAGE, {}, ValueError, r"np\.stack\(\[1 - p, p\]\)"),
        (np.ones((1, 5, 7)), IMAGE, {}, ValueError, "at least two labels"),
        (P[None], IMAGE, {}, ValueError, "without a batch axis"),
        (P * 0.9, IMAGE, {}, ValueError, "probabilities must sum to one over axis 0"),
        (P, IMAGE[1:], {}, ValueError, r"to match probabilities of \(3, 5, 7\).*Resize"),
        (P, IMAGE, {"num_iterations": -1}, ValueError, "^num_iterations must"),
    ],
)
def test_misuse_has_an_error_that_names_the_way_out(
    probabilities: Any, image: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        refine(probabilities, image, **options)


# oracle: the layer's own, the C++ dense CRF, is in test_reference.py


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_equals_the_layer(dtype: type) -> None:
    """With every option off the preset; P is above the clip."""
    options: dict[str, Any] = {
        "theta_alpha": 4.0, "theta_beta": 30.0, "theta_gamma": 1.5, "bilateral_weight": 2.0,
        "spatial_weight": 1.0, "normalization": "symmetric",
    }  # fmt: skip
    assert P.min() > 1e-5
    crf = CrfRnn.from_preset("deeplab_v1", 3, num_iterations_eval=3, **options).eval()
    unary = torch.from_numpy(P.astype(dtype)).float().log()[None]
    image = torch.from_numpy(IMAGE).permute(2, 0, 1)[None]
    expected = crf(unary, image).softmax(1)[0].detach().numpy()
    q = refine(P.astype(dtype), IMAGE, "deeplab_v1", num_iterations=3, **options)
    # The same kernels with scalar instead of per-class weights: rounding only.
    np.testing.assert_allclose(q, expected, rtol=1e-5, atol=1e-6)
    assert q.dtype == np.float32


# invariants and edges


def test_no_iterations_return_the_probabilities() -> None:
    np.testing.assert_allclose(refine(P, IMAGE, num_iterations=0), P, rtol=1e-5)  # float32


def test_inputs_are_not_modified_and_layout_does_not_matter() -> None:
    p, image = np.asfortranarray(P), IMAGE[::-1].copy()[::-1]
    p.flags.writeable = image.flags.writeable = False
    np.testing.assert_array_equal(refine(p, image), refine(P, IMAGE))
    np.testing.assert_array_equal(p, P)
    np.testing.assert_array_equal(image, IMAGE)


def test_hard_probabilities_and_one_pixel() -> None:
    assert np.isfinite(refine(np.eye(3)[:, :1, None], IMAGE[:1, :1])).all()
    hard = np.eye(3)[RNG.integers(0, 3, (5, 7))].transpose(2, 0, 1)
    assert np.isfinite(refine(hard, IMAGE)).all()
