"""One call on maps of every kind: what `CrfRnn` computes, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from crfrnn import CrfRnn, refine

RNG = np.random.default_rng(0)
H, W = 5, 7
IMAGE = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
P = RNG.dirichlet(np.ones(3), (H, W)).transpose(2, 0, 1)
LABELS = RNG.integers(0, 3, (H, W))
HOLE = P.copy()
HOLE[:, 1, 2] = 0


REFUSED: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (np.moveaxis(P, 0, -1), IMAGE, {}, ValueError, r"labels first.*moveaxis\(maps, 2, 0\)"),
    (P * 9, IMAGE, {}, ValueError, "kind='logits'"),
    (P, IMAGE[1:], {}, ValueError, r"to match maps of \(3, 5, 7\).*Resize"),
    (P, IMAGE.transpose(1, 0, 2), {}, ValueError, "swapped"),
    (P, IMAGE.astype(int) * 9, {}, ValueError, "0..255"),
    (P, IMAGE, {"where": LABELS}, ValueError, "where must be"),
    (HOLE, IMAGE, {}, ValueError, "1 of 35 pixels have no probability.*nodata"),
    (np.where(P[2, 3, 4] == P, np.nan, P), IMAGE, {}, ValueError, "row 3, column 4"),
    (LABELS.astype(np.int32)[None].repeat(2, 0), IMAGE, {}, TypeError, "one-hot"),
    (np.zeros((H, W), np.uint8), IMAGE, {}, ValueError, "label 0 alone.*num_labels"),
    (LABELS, IMAGE, {"num_labels": 2}, ValueError, r"in 0\.\.1, or 255"),
    (LABELS, IMAGE, {"certainty": 0.2}, ValueError, "certainty must be above 1/L"),
    (P, IMAGE, {"output": "mask", "confidence": 0.9, "unsure": 2}, ValueError, "unsure must"),
    ([P], [IMAGE, IMAGE], {}, ValueError, "1 maps, 2 images"),
    ((1.0,), [IMAGE], {}, TypeError, "NumPy array or a torch.Tensor"),
]


@pytest.mark.parametrize(("maps", "image", "options", "error", "words"), REFUSED)
def test_misuse_has_an_error_that_names_the_way_out(maps, image, options, error, words) -> None:
    with pytest.raises(error, match=words):
        refine(maps, image, **options)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_equals_the_layer(dtype: type) -> None:
    """With every option off the preset; P is above the clip."""
    options: dict[str, Any] = {
        "theta_alpha": 4.0, "theta_beta": 30.0, "theta_gamma": 1.5, "bilateral_weight": 2.0,
        "spatial_weight": 1.0, "normalization": "symmetric",
    }  # fmt: skip
    assert P.min() > 1e-5
    crf = CrfRnn.from_preset("deeplab_v1", 3, num_iterations_eval=3, **options).eval()
    p = torch.from_numpy(P.astype(dtype)).float()
    image = torch.from_numpy(IMAGE).permute(2, 0, 1)[None]
    expected = crf((p / p.sum(0)).log()[None], image).softmax(1)[0].detach().numpy()
    q = refine(P.astype(dtype), IMAGE, "deeplab_v1", num_iterations=3, **options)
    # The same kernels with scalar instead of per-class weights: rounding only.
    np.testing.assert_allclose(q, expected, rtol=1e-5, atol=1e-6)
    assert q.dtype == np.float32


def one_hot(labels: Any) -> Any:
    return np.eye(3, dtype=np.int64)[labels].transpose(2, 0, 1)


SOFT = np.where(one_hot(LABELS) == 1, 0.7, 0.15)


@pytest.mark.parametrize(
    ("maps", "options", "equal"),
    [
        (np.log(P), {"kind": "logits"}, P),
        (np.log(P[1] / (1 - P[1])), {"kind": "logits"}, np.stack([1 - P[1], P[1]])),
        (P[1], {}, np.stack([1 - P[1], P[1]])),
        (P[1][None], {}, np.stack([1 - P[1], P[1]])),
        (LABELS, {}, SOFT),
        (LABELS.astype(np.uint8), {}, SOFT),
        (one_hot(LABELS), {}, SOFT),
        (LABELS > 0, {}, np.where(np.stack([LABELS == 0, LABELS > 0]), 0.7, 0.3)),
        (LABELS + 9 * (LABELS == 2), {"unsure": 11, "num_labels": 3},
         np.where(LABELS == 2, 1 / 3, SOFT)),
        (P[:2] * 0.8, {"background": 2.0}, None),
        (HOLE, {"nodata": "uniform"}, np.where(HOLE.sum(0) == 0, 1 / 3, HOLE)),
        (np.ma.masked_array(P, mask=HOLE == 0), {"nodata": "uniform"},
         np.where(HOLE.sum(0) == 0, 1 / 3, P)),
    ],
)  # fmt: skip
def test_every_kind_of_map_means_the_same_as_its_probabilities(maps, options, equal) -> None:
    if equal is None:
        background = (1 - maps.max(0, keepdims=True)) ** 2
        equal = np.concatenate([background, maps])
        equal = equal / equal.sum(0)
    np.testing.assert_allclose(refine(maps, IMAGE, **options), refine(equal, IMAGE), atol=2e-5)


def test_eight_bit_maps_are_probabilities_and_others_are_divided_by_their_sum() -> None:
    many = RNG.dirichlet(np.ones(21), (H, W)).transpose(2, 0, 1)
    stored = np.round(many * 255).astype(np.uint8)
    np.testing.assert_allclose(refine(stored, IMAGE), refine(stored / 255, IMAGE), atol=1e-5)
    cam = RNG.random((3, H, W))
    with pytest.warns(UserWarning, match="divided by their sum") as seen:
        q = refine(cam, IMAGE)
    assert [warning.filename for warning in seen] == [__file__]
    np.testing.assert_allclose(q, refine(cam / cam.sum(0), IMAGE), atol=1e-6)


def test_tensors_batches_and_lists_equal_one_image_at_a_time() -> None:
    p, image = torch.from_numpy(P).requires_grad_(), torch.from_numpy(IMAGE).permute(2, 0, 1)
    expected = refine(P, IMAGE)
    q = refine(p, image)
    assert isinstance(q, torch.Tensor)
    assert not q.requires_grad
    np.testing.assert_array_equal(q.numpy(), expected)
    batch = refine(torch.stack([p, p.flip(0)]), torch.stack([image, image]))
    np.testing.assert_array_equal(batch[0].numpy(), expected)
    ragged = refine([P, P[:2, :4] / P[:2, :4].sum(0)], [IMAGE, IMAGE[:4]])
    np.testing.assert_array_equal(ragged[0], expected)
    assert ragged[1].shape == (2, 4, W)


def test_held_pixels_keep_their_probability_and_still_send() -> None:
    free = np.zeros((H, W), bool)
    free[2] = True
    q = refine(P, IMAGE, "krahenbuhl", where=free)
    np.testing.assert_allclose(q[:, ~free], P[:, ~free], rtol=1e-6)
    other = P.copy()
    other[:, 0] = other[::-1, 0]
    moved = refine(other, IMAGE, "krahenbuhl", where=free)
    assert np.abs(moved - q)[:, free].max() > 1e-4  # rounding is 1e-6
    everywhere = refine(P, IMAGE, where=np.ones((H, W), bool))
    np.testing.assert_allclose(everywhere, refine(P, IMAGE), atol=1e-4)  # the plain loop's rounding


def test_a_bias_comes_before_the_crf_and_the_scale_behind_it() -> None:
    bias = [0.5, 0.0, -1.0]
    moved = P * np.exp(-np.array(bias))[:, None, None]
    moved = (moved / moved.sum(0)).astype(np.float32)
    np.testing.assert_allclose(refine(P, IMAGE, label_bias=bias), refine(moved, IMAGE), atol=1e-5)
    with pytest.raises(ValueError, match="label_bias must be 3 finite numbers"):
        refine(P, IMAGE, label_bias=[0.5])
    q, free = refine(P, IMAGE), np.ones((H, W), bool)
    root = np.sqrt(q) / np.sqrt(q).sum(0)
    np.testing.assert_allclose(refine(P, IMAGE, output_scale=0.5), root, atol=1e-5)
    free[1] = False
    q = refine(P, IMAGE, output_scale=0.5, where=free)
    np.testing.assert_allclose(q[:, 1], P[:, 1], rtol=1e-6)
    np.testing.assert_allclose(q.sum(0), 1, atol=1e-5)


def test_pixels_that_are_left_out_send_nothing() -> None:
    q = refine(HOLE, IMAGE, nodata="leave_out")
    np.testing.assert_allclose(q[:, 1, 2], 1 / 3, rtol=1e-6)
    image = IMAGE.copy()
    image[1, 2] = 255 - image[1, 2]
    np.testing.assert_allclose(refine(HOLE, image, nodata="leave_out"), q, atol=1e-5)
    assert refine(HOLE, IMAGE, nodata="leave_out", output="mask")[1, 2] == 255


def test_a_mask_is_unsure_below_the_confidence() -> None:
    q = refine(P, IMAGE)
    middle = float(np.median(q.max(0)))
    mask = refine(P, IMAGE, output="mask", confidence=middle)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(q.max(0) < middle, 255, q.argmax(0)))
    assert 0 < (mask == 255).mean() < 1


def test_inputs_are_not_modified_and_layout_does_not_matter() -> None:
    p, image = np.asfortranarray(P), IMAGE[::-1].copy()[::-1]
    p.flags.writeable = image.flags.writeable = False
    np.testing.assert_array_equal(refine(p, image), refine(P, IMAGE))
    np.testing.assert_array_equal(p, P)
    np.testing.assert_array_equal(image, IMAGE)


def test_edges() -> None:
    np.testing.assert_allclose(refine(P, IMAGE, num_iterations=0), P, rtol=1e-5)  # float32
    for value in (0, 1, 128):
        grey = np.full((H, W), value, np.uint8)
        np.testing.assert_array_equal(refine(P, grey), refine(P, np.stack([grey] * 3, -1)))
    assert np.isfinite(refine(np.eye(3)[:, :1, None], IMAGE[:1, :1])).all()
    assert np.isfinite(refine(np.eye(3)[LABELS].transpose(2, 0, 1), IMAGE)).all()
