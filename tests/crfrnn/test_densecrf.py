"""The pydensecrf API: against that package's own numbers, and every misuse of it by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import crfrnn.densecrf as dcrf
from crfrnn.densecrf import (
    compute_unary,
    create_pairwise_bilateral,
    create_pairwise_gaussian,
    softmax_to_unary,
    unary_from_labels,
    unary_from_softmax,
)

REFERENCE = np.load(Path(__file__).parent / "crf_reference.npz")
META = {line.split(": ")[0]: line.split(": ", 1)[1] for line in REFERENCE["meta"].tolist()}
IMAGES = [name for name in META if f"{name}/image" in REFERENCE and name != "crfasrnn"]
NORMALIZATIONS = {
    "none": dcrf.NO_NORMALIZATION,
    "before": dcrf.NORMALIZE_BEFORE,
    "after": dcrf.NORMALIZE_AFTER,
    "symmetric": dcrf.NORMALIZE_SYMMETRIC,
}
Floats = npt.NDArray[Any]

# A 6 x 4 image (width, height), two labels.
W, H, L = 6, 4, 2
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
SOFTMAX = RNG.dirichlet(np.ones(L), (H, W)).transpose(2, 0, 1).astype(np.float32)
ENERGY = unary_from_softmax(SOFTMAX)
FEATURES = create_pairwise_bilateral((3, 3), 40, IMAGE, chdim=2)


def small_crf() -> dcrf.DenseCRF2D:
    d = dcrf.DenseCRF2D(W, H, L)
    d.setUnaryEnergy(ENERGY)
    d.addPairwiseGaussian(sxy=1.5, compat=1)
    d.addPairwiseBilateral(sxy=3, srgb=40, rgbim=IMAGE, compat=2)
    return d


# shape


def test_results_are_arrays_labels_first() -> None:
    q = small_crf().inference(5)
    assert isinstance(q, np.ndarray)
    assert q.shape == (L, W * H)
    assert q.dtype == np.float32
    assert q.flags.c_contiguous
    np.testing.assert_allclose(q.sum(0), 1, rtol=1e-6)  # one float32 rounding a label
    assert np.argmax(np.array(q), axis=0).reshape(H, W).shape == (H, W)


def test_features_of_a_grid() -> None:
    """sdims follow the array's axes, where sxy is (x, y)."""
    expected = [[0, 0, 0, 0.5, 0.5, 0.5], [0, 0.25, 0.5, 0, 0.25, 0.5]]
    np.testing.assert_array_equal(create_pairwise_gaussian((2, 4), (2, 3)), expected)
    np.testing.assert_array_equal(create_pairwise_gaussian((2, 4), np.array([2, 3])), expected)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    features = create_pairwise_bilateral((2, 4), (1, 2, 4), image, chdim=2)
    np.testing.assert_array_equal(features[:2], expected)
    np.testing.assert_array_equal(features[2:, 4], [12, 6.5, 3.5])
    first = create_pairwise_bilateral((2, 4), (1, 2, 4), np.moveaxis(image, 2, 0), chdim=0)
    np.testing.assert_array_equal(first, features)
    assert create_pairwise_bilateral((2, 4), 5, image[..., 0]).shape == (3, 6)  # chdim=-1: grey
    assert features.dtype == np.float32


def test_constants_are_names_and_members() -> None:
    assert dcrf.NORMALIZE_SYMMETRIC is dcrf.NormalizationType.NORMALIZE_SYMMETRIC
    assert [int(c) for c in dcrf.NormalizationType] == [0, 1, 2, 3]
    assert [int(c) for c in dcrf.KernelType] == [0, 1, 2]
    for name in [*dcrf.NormalizationType.__members__, *dcrf.KernelType.__members__]:
        assert name in dcrf.__all__
        assert isinstance(getattr(dcrf, name), (dcrf.NormalizationType, dcrf.KernelType))


# errors

NAN = np.where(np.arange(W * H) == 3, np.nan, ENERGY).astype(np.float32)
FLOAT_IMAGE = IMAGE.astype(np.float32)


def energy(u: Any, *more: Any) -> Callable[[], object]:
    return lambda: dcrf.DenseCRF2D(W, H, L).setUnaryEnergy(u, *more)


def bilateral(image: Any, **options: Any) -> Callable[[], object]:
    given = {"sxy": 3, "srgb": 40, "rgbim": image, "compat": 2} | options
    return lambda: dcrf.DenseCRF2D(W, H, L).addPairwiseBilateral(**given)


def gaussian(**options: Any) -> Callable[[], object]:
    given: dict[str, Any] = {"sxy": 3, "compat": 2} | options
    return lambda: dcrf.DenseCRF2D(W, H, L).addPairwiseGaussian(**given)


def pairwise(features: Any) -> Callable[[], object]:
    return lambda: dcrf.DenseCRF(W * H, L).addPairwiseEnergy(features, 1.0)


def labels(values: Any, *args: Any, **options: Any) -> Callable[[], object]:
    return lambda: unary_from_labels(values, *(args or (3, 0.7)), **options)


def softmax(sm: Any, **options: Any) -> Callable[[], object]:
    return lambda: unary_from_softmax(sm, **options)


def step(q: Any) -> Callable[[], object]:
    return lambda: small_crf().stepInference(q, q, q)


MISUSE: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    # constructors
    "no labels": (lambda: dcrf.DenseCRF(5, 0), ValueError, "nlabels must be an integer"),
    "float width": (lambda: dcrf.DenseCRF2D(6.0, 4, 2), ValueError, "^w must"),  # type: ignore[arg-type]
    "float nvar": (lambda: dcrf.DenseCRF(24.0, 2), ValueError, "^nvar must"),  # type: ignore[arg-type]
    # unary energies
    "list": (energy([[1.0]]), TypeError, r"got list: pass np\.asarray\(u\)"),
    "tensor": (energy(torch.ones(2, 24)), TypeError, r"u\.detach\(\)\.cpu\(\)\.numpy\(\)"),
    "int energies": (energy(np.ones((L, 24), int)), TypeError, "int64.*unary_from_softmax"),
    "not flat": (energy(ENERGY.reshape(L, H, W)), ValueError, r"pass u\.reshape\(2, -1\)"),
    "labels last": (energy(ENERGY.T), ValueError, r"pass u\.T"),
    "(h, w, L)": (energy(ENERGY.T.reshape(H, W, L)), ValueError, r"np\.moveaxis\(u, -1, 0\)"),
    "other size": (energy(ENERGY[:, 1:]), ValueError, r"made for 24 variables.*DenseCRF2D\(w, h"),
    "NaN": (energy(NAN), ValueError, "NaN"),
    "-inf": (energy(np.full((L, 24), -np.inf)), ValueError, "above -inf"),
    "nothing possible": (energy(np.full((L, 24), np.inf)), ValueError, "one finite label"),
    "probabilities": (energy(SOFTMAX.reshape(L, -1)), ValueError, r"unary_from_softmax\(u\)"),
    "logistic": (energy(ENERGY, ENERGY), NotImplementedError, r"setUnaryEnergy\(u @ f\)"),
    "setUnary": (lambda: small_crf().setUnary(1), NotImplementedError, r"setUnaryEnergy\(u\)"),
    "ConstUnary": (lambda: dcrf.ConstUnary(1), NotImplementedError, r"setUnaryEnergy\(u\)"),
    "LogisticUnary": (lambda: dcrf.LogisticUnary(1, 2), NotImplementedError, "L @ f"),
    "no unary": (lambda: dcrf.DenseCRF(9, 2).inference(1), RuntimeError, "call setUnaryEnergy"),
    # images
    "channels first": (bilateral(np.moveaxis(IMAGE, 2, 0)), ValueError, r"moveaxis\(rgbim, 0, -1"),
    "transposed": (bilateral(IMAGE.transpose(1, 0, 2)), ValueError, r"rgbim\.transpose\(1, 0, 2"),
    "grey": (bilateral(IMAGE[..., 0]), ValueError, r"np\.stack\(\[rgbim\] \* 3"),
    "grey with axis": (bilateral(IMAGE[..., :1]), ValueError, r"np\.repeat\(rgbim, 3, axis=2\)"),
    "alpha": (bilateral(np.ones((H, W, 4), np.uint8)), ValueError, r"rgbim\[\.\.\., :3\]"),
    "batch": (bilateral(IMAGE[None]), ValueError, r"pass rgbim\[0\]"),
    "other image": (bilateral(IMAGE[1:]), ValueError, r"DenseCRF2D\(w=6, h=4, \.\.\.\).*Resize"),
    "0..1": (bilateral(FLOAT_IMAGE / 255), TypeError, r"\(rgbim \* 255\)\.round\(\)"),
    "mean-subtracted": (bilateral(FLOAT_IMAGE - 120), TypeError, "before normalisation"),
    "too bright": (bilateral(IMAGE.astype(int) * 2), TypeError, "not RGB in 0..255"),
    "int image": (bilateral(IMAGE.astype(int)), TypeError, r"pass rgbim\.astype\(np\.uint8\)"),
    "float image": (bilateral(FLOAT_IMAGE), TypeError, r"rgbim\.round\(\)\.astype\(np\.uint8\)"),
    "NaN image": (bilateral(FLOAT_IMAGE * np.nan), TypeError, "NaN or infinite"),
    "bool image": (bilateral(IMAGE > 9), TypeError, "uint8 RGB in 0..255, got bool"),
    "image tensor": (bilateral(torch.from_numpy(IMAGE)), TypeError, r"rgbim\.detach"),
    # widths and compatibilities
    "sxy of three": (gaussian(sxy=(1, 2, 3)), ValueError, "sxy must be a number or 2"),
    "sxy of zero": (gaussian(sxy=0), ValueError, "sxy must be a finite number above 0"),
    "srgb of two": (bilateral(IMAGE, srgb=(3, 3)), ValueError, "srgb must be a number or 3"),
    "too narrow": (bilateral(IMAGE, srgb=1e-5), ValueError, "theta is too small"),
    "long vector": (gaussian(compat=np.ones(3)), ValueError, r"\(L,\) = \(2,\)"),
    "cube": (gaussian(compat=np.ones((2, 2, 2))), ValueError, "compat must be a number"),
    "compat NaN": (gaussian(compat=np.nan), ValueError, "compat must be finite"),
    "compat words": (gaussian(compat="potts"), TypeError, "compat must be a number"),
    "compat tensor": (gaussian(compat=torch.ones(2)), TypeError, r"compat\.numpy\(\)"),
    "name": (gaussian(normalization="symmetric"), ValueError, "NORMALIZE_SYMMETRIC, got 'symm"),
    "swapped": (gaussian(normalization=dcrf.DIAG_KERNEL), ValueError, "got <KernelType.DIAG"),
    "kernel": (gaussian(kernel=7), ValueError, "CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL, got 7"),
    # features
    "features (N, d)": (pairwise(FEATURES.T), ValueError, r"pass features\.T|Pass features\.T"),
    "features (d, h, w)": (pairwise(FEATURES.reshape(5, H, W)), ValueError, "the grid flat"),
    "int features": (pairwise(FEATURES.astype(int)), TypeError, "divided by theta first"),
    "NaN features": (pairwise(FEATURES * np.nan), ValueError, "no width is 0"),
    # feature helpers
    "sdims of one": (lambda: create_pairwise_gaussian((3,), (4, 6)), ValueError, "sdims must.* 2,"),
    "no grid": (lambda: create_pairwise_gaussian(3, ()), ValueError, "at least one axis"),
    "chdim forgotten": (
        lambda: create_pairwise_bilateral((3, 3), 13, IMAGE),
        ValueError,
        r"-1: no channel axis; pass chdim=2",
    ),
    "no such axis": (
        lambda: create_pairwise_bilateral((3, 3), 13, IMAGE, 3),
        ValueError,
        "chdim must be an axis",
    ),
    "schan of two": (
        lambda: create_pairwise_bilateral((3, 3), (13, 13), IMAGE, 2),
        ValueError,
        "schan must be a number or 3",
    ),
    "complex": (lambda: create_pairwise_bilateral(3, 3, 1j * IMAGE, 2), TypeError, "real numbers"),
    "NaN guide": (
        lambda: create_pairwise_bilateral(3, 3, np.full((2, 2), np.nan)),
        ValueError,
        "fill them first",
    ),
    # labels
    "float labels": (labels(np.ones(4)), TypeError, r"labels\.astype\(np\.int64\)"),
    "mask": (labels(np.ones(4, bool)), TypeError, "n_labels=2 with zero_unsure=False"),
    "void": (labels(np.array([0, 255])), ValueError, "A void label such as 255"),
    "negative": (labels(np.array([-1, 1])), ValueError, r"0\.\.3 \(0 = unknown\).* got -1\.\.1"),
    "label L": (labels(np.array([3]), zero_unsure=False), ValueError, r"must be in 0\.\.2"),
    "one label": (labels(np.array([0, 1]), 1, 0.7), ValueError, "n_labels=2, zero_unsure=False"),
    "sure": (labels(np.array([1]), 3, 1.0), ValueError, r"gt_prob must be in \(0, 1\)"),
    # softmax
    "last axis": (softmax(np.moveaxis(SOFTMAX, 0, -1)), ValueError, r"np\.moveaxis\(sm, -1, 0\)"),
    "a batch": (softmax(SOFTMAX[None]), ValueError, r"sm\[0\]"),
    "one map": (softmax(SOFTMAX[:1]), ValueError, r"np\.stack\(\[1 - p, p\]\)"),
    "flat map": (softmax(SOFTMAX[0]), ValueError, r"np\.stack\(\[1 - p, p\]\)"),
    "sigmoids": (softmax(np.full((3, 4, 5), 0.9)), ValueError, "Sigmoid outputs"),
    "logits": (softmax(SOFTMAX * 9), ValueError, "go through a softmax"),
    "softmax NaN": (softmax(SOFTMAX * np.nan), ValueError, "0 / 0"),
    "bytes": (softmax((SOFTMAX * 255).astype(np.uint8)), TypeError, "divided by 255"),
    "number": (softmax(np.array(1.0)), ValueError, "a single number"),
    "no pixels": (softmax(SOFTMAX[:, :0]), ValueError, "at least one element"),
    "scale": (softmax(SOFTMAX, scale=0), ValueError, r"scale must be in \(0, 1\]"),
    "clip": (softmax(SOFTMAX, clip=0), ValueError, "clip must be in"),
    # inference
    "negative count": (lambda: small_crf().inference(-1), ValueError, "niter must be"),
    "Q reshaped": (step(np.ones((L, H, W), np.float32)), ValueError, "of startInference, got"),
    "Q of float64": (step(np.ones((L, 24))), ValueError, r"float32 .*got \(2, 24\) float64"),
    "Q a tensor": (step(torch.ones(L, 24)), ValueError, "got Tensor"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_has_an_error_that_names_the_way_out(case: str) -> None:
    call, error, message = MISUSE[case]
    before = [a.copy() for a in (ENERGY, IMAGE, FEATURES, SOFTMAX)]
    with pytest.raises(error, match=message):
        call()
    for now, then in zip((ENERGY, IMAGE, FEATURES, SOFTMAX), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_zero_counted_as_a_label_warns() -> None:
    """Whether 0 is a label cannot be told from the labels; that it may be, can."""
    mask = np.array([[0, 1], [1, 0]])
    with pytest.warns(UserWarning, match="label 2 never occurs.*zero_unsure=False"):
        unary_from_labels(mask, 2, 0.7)
    unary_from_labels(mask, 2, 0.7, zero_unsure=False)
    unary_from_labels(mask, 3, 0.7)  # 1 of 3 labels and unknown: nothing to suspect


# oracle


def reference_crf(name: str) -> dcrf.DenseCRF:
    """The case written as that package's users write it."""
    settings = dict(re.findall(r"(\w+)=(\[\[.*?\]\]|\[.*?\]|[\w.]+)", META[name]))
    unary = REFERENCE[f"{name}/unary_logits"]
    num_labels, height, width = unary.shape
    normalization = NORMALIZATIONS[settings["normalization"]]

    def compat(key: str) -> Any:
        value = ast.literal_eval(settings[key])
        return np.array(value, np.float32) if isinstance(value, list) else value

    d = dcrf.DenseCRF2D(width, height, num_labels)
    d.setUnaryEnergy(-unary.reshape(num_labels, -1))
    d.addPairwiseGaussian(
        sxy=float(settings["sxy_gaussian"]),
        compat=compat("compat_gaussian"),
        kernel=dcrf.DIAG_KERNEL,
        normalization=normalization,
    )
    d.addPairwiseBilateral(
        sxy=float(settings["sxy"]),
        srgb=float(settings["srgb"]),
        rgbim=REFERENCE[f"{name}/image"],
        compat=compat("compat_bilateral"),
        kernel=dcrf.DIAG_KERNEL,
        normalization=normalization,
    )
    return d


@pytest.mark.parametrize("name", IMAGES)
def test_equals_the_package_it_stands_in_for(name: str) -> None:
    d = reference_crf(name)
    theirs = REFERENCE[f"{name}/q"].reshape(len(REFERENCE[f"{name}/q"]), -1)
    kl_per_pixel = REFERENCE[f"{name}/kl_per_pixel"]
    ours = d.inference(len(kl_per_pixel))
    # The same arithmetic in another order, amplified by up to 10 sharpening iterations.
    assert np.abs(ours - theirs).max() < 1e-3
    np.testing.assert_array_equal(ours.argmax(0), theirs.argmax(0))

    q, tmp1, tmp2 = d.startInference()
    for expected in kl_per_pixel:
        d.stepInference(q, tmp1, tmp2)
        # What is asked for is 1 %; float32 and the order of sums leave far less.
        assert d.klDivergence(q) / q.shape[1] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_array_equal(q, ours)


def test_equals_the_package_on_a_volume() -> None:
    unary, guide = REFERENCE["volume/unary_logits"], REFERENCE["volume/guide"]
    theirs = REFERENCE["volume/q"].reshape(2, -1)
    d = dcrf.DenseCRF(guide.size, 2)
    d.setUnaryEnergy(-unary.reshape(2, -1))
    d.addPairwiseEnergy(create_pairwise_gaussian((2, 3, 3), guide.shape), compat=2)
    features = create_pairwise_bilateral((4, 8, 8), (20,), guide)
    d.addPairwiseEnergy(features, compat=6, kernel=dcrf.FULL_KERNEL)
    ours = d.inference(5)
    assert np.abs(ours - theirs).max() < 1e-3  # as for the images
    np.testing.assert_array_equal(ours.argmax(0), theirs.argmax(0))


def test_unary_from_labels_by_hand() -> None:
    got = unary_from_labels(np.array([[1, 0], [3, 2]], np.uint8), 3, 0.6)
    sure, other, unsure = -np.log([0.6, 0.2, 1 / 3])
    expected = [
        [sure, unsure, other, other],
        [other, unsure, other, sure],
        [other, unsure, sure, other],
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-6)  # float32
    zero_is_a_label = unary_from_labels(np.array([0, 2]), 3, 0.6, zero_unsure=False)
    np.testing.assert_allclose(zero_is_a_label[:, 0], [sure, other, other], rtol=1e-6)
    assert got.dtype == np.float32


def test_unary_from_softmax_by_hand() -> None:
    sm = np.array([[[1.0, 0.5]], [[0.0, 0.5]]])
    expected = -np.log([[1, 0.5], [1e-5, 0.5]])
    np.testing.assert_allclose(unary_from_softmax(sm), expected, rtol=1e-6)  # float32
    np.testing.assert_allclose(
        unary_from_softmax(sm, scale=0.8), -np.log([[0.9, 0.5], [0.1, 0.5]]), rtol=1e-6
    )
    assert np.isposinf(unary_from_softmax(sm, clip=None)[1, 0])
    assert unary_from_softmax(sm).dtype == np.float32
    assert not np.signbit(unary_from_softmax(sm)).any()


def test_deprecated_names() -> None:
    with pytest.deprecated_call(match="unary_from_softmax"):
        old = softmax_to_unary(SOFTMAX, 0.8)
    np.testing.assert_array_equal(old, unary_from_softmax(SOFTMAX, 0.8, clip=None))
    with pytest.deprecated_call(match="unary_from_labels"):
        old = compute_unary(np.array([1, 2]), 2)
    np.testing.assert_array_equal(old, unary_from_labels(np.array([1, 2]), 2, 0.5))


# invariants


def test_a_scalar_attracts_and_a_vector_is_an_energy() -> None:
    def q(compat: Any) -> Floats:
        d = dcrf.DenseCRF2D(W, H, L)
        d.setUnaryEnergy(ENERGY)
        d.addPairwiseGaussian(2, compat)
        return d.inference(3)

    np.testing.assert_array_equal(q(2), q(np.array([-2.0, -2.0])))
    np.testing.assert_array_equal(q(2), q(-2 * np.eye(L)))
    np.testing.assert_array_equal(q([[0, 4], [0, 0]]), q([[0, 2], [2, 0]]))  # symmetrised
    alone = np.exp(-ENERGY).max(0).mean()
    assert q(2).max(0).mean() > alone > q(np.array([2.0, 2.0])).max(0).mean()


def test_the_kernel_type_changes_nothing() -> None:
    """They differ in what could be learnt, and all start at the identity."""
    results = []
    for kernel in dcrf.KernelType:
        d = dcrf.DenseCRF2D(W, H, L)
        d.setUnaryEnergy(ENERGY)
        d.addPairwiseBilateral(3, 40, IMAGE, 2, kernel, dcrf.NORMALIZE_AFTER)
        results.append(d.inference(3))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_sxy_is_x_then_y() -> None:
    """A kernel wide in x alone mixes along rows alone."""
    u = np.zeros((L, H * W), np.float32)
    u[0, 0] = 5  # the first pixel prefers label 1
    d = dcrf.DenseCRF2D(W, H, L)
    d.setUnaryEnergy(u)
    d.addPairwiseGaussian(sxy=(2, 1e-2), compat=1, normalization=dcrf.NORMALIZE_AFTER)
    q = d.inference(1)[1].reshape(H, W)
    assert q[0, 1] > 0.51
    np.testing.assert_allclose(q[1:], 0.5, atol=1e-6)  # rounding: nothing arrives


def test_the_generic_crf_equals_the_one_for_images() -> None:
    d = dcrf.DenseCRF(W * H, L)
    d.setUnaryEnergy(ENERGY)
    d.addPairwiseEnergy(create_pairwise_gaussian(1.5, (H, W))[::-1], 1)  # (x, y)
    d.addPairwiseEnergy(FEATURES[[1, 0, 2, 3, 4]], 2)
    np.testing.assert_allclose(d.inference(5), small_crf().inference(5), rtol=1e-5)  # float32


def test_no_kernel_is_the_softmax_of_the_unary() -> None:
    d = dcrf.DenseCRF(W * H, L)
    d.setUnaryEnergy(ENERGY)
    np.testing.assert_allclose(d.inference(3), SOFTMAX.reshape(L, -1), rtol=1e-5)  # float32
    np.testing.assert_array_equal(small_crf().inference(0), d.inference(0))
    assert d.klDivergence(d.inference(0)) == pytest.approx(0, abs=1e-4)  # 24 float32 terms


def test_an_impossible_label_stays_impossible() -> None:
    u = ENERGY.copy()
    u[0, :5] = np.inf
    d = small_crf()
    d.setUnaryEnergy(u)
    q = d.inference(5)
    assert (q[0, :5] == 0).all()
    assert np.isfinite(q).all()
    assert np.isfinite(d.klDivergence(q))


def test_inputs_are_copied_and_left_alone() -> None:
    u, image, features = ENERGY.copy(), IMAGE.copy(), FEATURES.copy()
    d = dcrf.DenseCRF2D(W, H, L)
    d.setUnaryEnergy(u)
    d.addPairwiseBilateral(3, 40, image, 2)
    d.addPairwiseEnergy(features, 2)
    q = d.inference(3)
    d.klDivergence(q)
    for given, original in ((u, ENERGY), (image, IMAGE), (features, FEATURES)):
        np.testing.assert_array_equal(given, original)
        given[...] = 7
    np.testing.assert_array_equal(d.inference(3), q)


def test_float32_inside_autocast() -> None:
    outside = small_crf().inference(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(small_crf().inference(3), outside)


# layout and edges


def test_layout_and_precision_of_the_arrays_do_not_matter() -> None:
    expected = small_crf().inference(3)
    read_only = IMAGE[::-1].copy()[::-1]  # a negative stride
    read_only.flags.writeable = False
    for u in (np.asfortranarray(ENERGY), ENERGY.astype(np.float64), ENERGY.astype(">f4")):
        d = dcrf.DenseCRF2D(W, H, L)
        d.setUnaryEnergy(u)
        d.addPairwiseGaussian(sxy=np.float64(1.5), compat=np.int64(1))
        d.addPairwiseBilateral((3, 3), np.array([40, 40, 40]), read_only, 2.0)
        np.testing.assert_array_equal(d.inference(3), expected)


@pytest.mark.parametrize(("w", "h", "num_labels"), [(1, 1, 2), (5, 1, 1), (3, 4, 256)])
def test_edges(w: int, h: int, num_labels: int) -> None:
    d = dcrf.DenseCRF2D(w, h, num_labels)
    d.setUnaryEnergy(RNG.random((num_labels, w * h), np.float32) * 9)
    d.addPairwiseGaussian(3, 3)
    d.addPairwiseBilateral(80, 13, np.full((h, w, 3), 128, np.uint8), 10)
    np.testing.assert_allclose(d.inference(5).sum(0), 1, rtol=1e-5)  # float32, 256 terms


def test_repr() -> None:
    assert repr(small_crf()) == "DenseCRF2D(w=6, h=4, nlabels=2), 2 kernels"
    assert repr(dcrf.DenseCRF(9, 2)) == "DenseCRF(nvar=9, nlabels=2), 0 kernels"
