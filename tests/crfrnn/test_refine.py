"""One call on NumPy arrays: what `CrfRnn` computes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import crfrnn
from crfrnn import CrfRnn, refine

REFERENCE = np.load(Path(__file__).parent / "crf_reference.npz")
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
P = RNG.dirichlet(np.ones(3), (5, 7)).transpose(2, 0, 1)


# shape


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_in_probabilities_out(dtype: type) -> None:
    q = refine(P.astype(dtype), IMAGE)
    assert isinstance(q, np.ndarray)
    assert q.shape == P.shape
    assert q.dtype == np.float32
    assert q.flags.c_contiguous
    np.testing.assert_allclose(q.sum(0), 1, rtol=1e-6)  # one float32 rounding a label


def test_it_is_part_of_the_package() -> None:
    assert crfrnn.refine is refine
    assert "refine" in crfrnn.__all__


# errors


@pytest.mark.parametrize(
    ("probabilities", "image", "options", "error", "message"),
    [
        (np.moveaxis(P, 0, -1), IMAGE, {}, ValueError, r"labels first.*moveaxis\(prob"),
        (P[0], IMAGE, {}, ValueError, r"np\.stack\(\[1 - p, p\]\)"),
        (P[:1], IMAGE, {}, ValueError, r"np\.stack\(\[1 - p, p\]\)"),
        (np.ones((1, 5, 7)), IMAGE, {}, ValueError, "at least two labels"),
        (P[None], IMAGE, {}, ValueError, "without a batch axis"),
        (P * 9, IMAGE, {}, ValueError, "go through a softmax"),
        (P * 0.9, IMAGE, {}, ValueError, "sum to one over axis 0"),
        (P * np.nan, IMAGE, {}, ValueError, "got NaN"),
        ((P * 255).astype(np.uint8), IMAGE, {}, TypeError, "divided by 255"),
        (torch.from_numpy(P), IMAGE, {}, TypeError, r"crfrnn\.CrfRnn, which works on tensors"),
        (P.tolist(), IMAGE, {}, TypeError, r"np\.asarray\(probabilities\)"),
        (P, torch.from_numpy(IMAGE), {}, TypeError, r"image\.detach"),
        (P, IMAGE.tolist(), {}, TypeError, r"np\.asarray\(image\)"),
        (P, IMAGE[1:], {}, ValueError, r"to match probabilities of \(3, 5, 7\).*Resize"),
        (P, IMAGE.transpose(1, 0, 2), {}, ValueError, r"image\.transpose\(1, 0, 2\)"),
        (P, np.moveaxis(IMAGE, 2, 0), {}, ValueError, r"np\.moveaxis\(image, 0, -1\)"),
        (P, IMAGE / 255, {}, TypeError, r"\(image \* 255\)\.round\(\)"),
        (P, IMAGE - 120.0, {}, TypeError, "before normalisation"),
        (P, IMAGE, {"preset": "deeplab_v2"}, ValueError, "Did you mean 'deeplab_v"),
        (P, IMAGE, {"num_iterations": -1}, ValueError, "^num_iterations must"),
        (P, IMAGE, {"theta_alpha": 0}, ValueError, "theta_alpha must .*pixels"),
        (P, IMAGE, {"bilateral_weight": np.nan}, ValueError, "bilateral_weight must be a finite"),
        (P, IMAGE, {"normalization": "symetric"}, ValueError, "Did you mean 'symmetric'"),
        (P, IMAGE, {"theta": 3}, TypeError, "unexpected keyword argument 'theta'"),
    ],
)
def test_misuse_has_an_error_that_names_the_way_out(
    probabilities: Any, image: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        refine(probabilities, image, **options)


# oracle


def test_equals_the_layer() -> None:
    crf = CrfRnn.from_preset("deeplab_v1", 3, theta_alpha=4.0, num_iterations_eval=3).eval()
    unary = torch.from_numpy(P).float().log()[None]
    image = torch.from_numpy(IMAGE).permute(2, 0, 1)[None]
    expected = crf(unary, image).softmax(1)[0].detach().numpy()
    q = refine(P, IMAGE, "deeplab_v1", theta_alpha=4.0, num_iterations=3)
    # The same kernels with scalar instead of per-class weights: rounding only. P is above the clip.
    assert P.min() > 1e-5
    np.testing.assert_allclose(q, expected, rtol=1e-5, atol=1e-6)


def test_agrees_with_the_cpp_dense_crf() -> None:
    logits = REFERENCE["deeplab_v2_resnet101/unary_logits"]
    exp = np.exp(logits - logits.max(0))
    q = refine(
        exp / exp.sum(0),
        REFERENCE["deeplab_v2_resnet101/image"],
        preset="deeplab_v2_resnet101",
        normalization="symmetric",
    )
    theirs = REFERENCE["deeplab_v2_resnet101/q"]
    # Their spatial kernel is a lattice's, this one is exact; and this one clips at 1e-5.
    assert (q.argmax(0) == theirs.argmax(0)).mean() >= 0.99
    assert np.abs(q - theirs).mean() < 0.01


# invariants


@pytest.mark.parametrize(
    "option",
    [
        {"num_iterations": 1},
        {"theta_alpha": 2.0},
        {"theta_beta": 80.0},
        {"theta_gamma": 3.0},
        {"bilateral_weight": 9.0},
        {"spatial_weight": 9.0},
        {"normalization": "none"},
    ],
)
def test_every_option_reaches_the_layer(option: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"num_iterations": 2, "theta_beta": 40.0, "theta_alpha": 8.0}
    before, after = refine(P, IMAGE, **plain), refine(P, IMAGE, **(plain | option))
    assert float(np.abs(after - before).max()) > 1e-3


def test_no_iterations_return_the_probabilities() -> None:
    np.testing.assert_allclose(refine(P, IMAGE, num_iterations=0), P, rtol=1e-5)  # float32


def test_inputs_are_not_modified_and_layout_does_not_matter() -> None:
    p, image = np.asfortranarray(P), IMAGE[::-1].copy()[::-1]
    p.flags.writeable = image.flags.writeable = False
    np.testing.assert_array_equal(refine(p, image), refine(P, IMAGE))
    np.testing.assert_array_equal(p, P)
    np.testing.assert_array_equal(image, IMAGE)


# edges


def test_hard_probabilities_and_one_pixel() -> None:
    assert np.isfinite(refine(np.eye(3)[:, :1, None], IMAGE[:1, :1])).all()
    hard = np.eye(3)[RNG.integers(0, 3, (5, 7))].transpose(2, 0, 1)
    assert np.isfinite(refine(hard, IMAGE)).all()
