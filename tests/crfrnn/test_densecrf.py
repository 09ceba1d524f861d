"""The pydensecrf API: against that package's own numbers, and every misuse of it by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
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
from tests.crfrnn.problems import Array, image_cases

NORMALIZATIONS = dict(
    zip(("none", "before", "after", "symmetric"), dcrf.NormalizationType, strict=True)
)
Floats = npt.NDArray[Any]

# A 6 x 4 image (width, height), two labels.
W, H, L = 6, 4, 2
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
SOFTMAX = RNG.dirichlet(np.ones(L), (H, W)).transpose(2, 0, 1).astype(np.float32)
ENERGY = unary_from_softmax(SOFTMAX)
FEATURES = create_pairwise_bilateral((3, 3), 40, IMAGE, chdim=2)


def bare_crf(u: Floats = ENERGY) -> dcrf.DenseCRF2D:
    d = dcrf.DenseCRF2D(W, H, L)
    d.setUnaryEnergy(u)
    return d


def small_crf(u: Floats = ENERGY) -> dcrf.DenseCRF2D:
    d = bare_crf(u)
    d.addPairwiseGaussian(sxy=1.5, compat=1)
    d.addPairwiseBilateral(sxy=3, srgb=40, rgbim=IMAGE, compat=2)
    return d


def test_features_of_a_grid() -> None:
    """sdims follow the array's axes, where sxy is (x, y)."""
    expected = [[0, 0, 0, 0.5, 0.5, 0.5], [0, 0.25, 0.5, 0, 0.25, 0.5]]
    np.testing.assert_array_equal(create_pairwise_gaussian((2, 4), np.array([2, 3])), expected)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    features = create_pairwise_bilateral((2, 4), (1, 2, 4), image, chdim=2)
    np.testing.assert_array_equal(features[:2], expected)
    np.testing.assert_array_equal(features[2:, 4], [12, 6.5, 3.5])
    first = create_pairwise_bilateral((2, 4), (1, 2, 4), np.moveaxis(image, 2, 0), chdim=0)
    np.testing.assert_array_equal(first, features)
    assert create_pairwise_bilateral((2, 4), 5, image[..., 0]).shape == (3, 6)  # chdim=-1: grey


# errors

NAN = np.where(np.arange(W * H) == 3, np.nan, ENERGY).astype(np.float32)
FLOAT_IMAGE = IMAGE.astype(np.float32)
# Each makes a call to be refused of what it is given.
CRF = dcrf.DenseCRF2D(W, H, L)
energy: Any = partial(partial, CRF.setUnaryEnergy)
gaussian: Any = partial(partial, CRF.addPairwiseGaussian, sxy=3, compat=2)
bilateral: Any = partial(partial, CRF.addPairwiseBilateral, 3, 40, compat=2)
pairwise: Any = partial(partial, CRF.addPairwiseEnergy, compat=1)
step: Any = partial(partial, CRF.stepInference)
guide: Any = partial(partial, create_pairwise_bilateral)
labels: Any = partial(partial, unary_from_labels, n_labels=3, gt_prob=0.7)
softmax: Any = partial(partial, unary_from_softmax)

REFUSED: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: dcrf.DenseCRF2D(0, 4, 2), ValueError, "^w must"),
    (energy([[1.0]]), TypeError, r"got list: pass np\.asarray\(u\)"),
    (energy(torch.ones(2, 24)), TypeError, r"u\.detach\(\)\.cpu\(\)\.numpy\(\)"),
    (energy(np.ones((L, 24), int)), TypeError, "int64.*unary_from_softmax"),
    (energy(ENERGY.reshape(L, H, W)), ValueError, r"pass u\.reshape\(2, -1\)"),
    (energy(ENERGY.T), ValueError, r"pass u\.T"),
    (energy(ENERGY[:, 1:]), ValueError, r"made for 24 variables.*DenseCRF2D\(w, h"),
    (energy(NAN), ValueError, "NaN"),
    (energy(np.full((L, 24), np.inf)), ValueError, "one finite label"),
    (energy(SOFTMAX.reshape(L, -1)), ValueError, r"unary_from_softmax\(u\)"),
    (energy(ENERGY, ENERGY), NotImplementedError, r"setUnaryEnergy\(u @ f\)"),
    (partial(CRF.inference, 1), RuntimeError, "call setUnaryEnergy"),
    (step(*[np.ones((L, 24))] * 3), ValueError, "float32 .*float64"),
    (lambda: small_crf().klDivergence(ENERGY[:, 1:]), ValueError, "of startInference, got"),
    (bilateral(np.moveaxis(IMAGE, 2, 0)), ValueError, r"moveaxis\(rgbim, 0, -1"),
    (bilateral(IMAGE.transpose(1, 0, 2)), ValueError, r"rgbim\.transpose\(1, 0, 2"),
    (bilateral(IMAGE[..., 0]), ValueError, r"np\.stack\(\[rgbim\] \* 3"),
    (bilateral(IMAGE[1:]), ValueError, r"DenseCRF2D\(w=6, h=4, \.\.\.\).*Resize"),
    (bilateral(FLOAT_IMAGE / 255), TypeError, r"\(rgbim \* 255\)\.round\(\)"),
    (bilateral(FLOAT_IMAGE - 120), TypeError, "before normalisation"),
    (gaussian(sxy=(1, 2, 3)), ValueError, "sxy must be a number or 2"),
    (gaussian(compat=np.ones(3)), ValueError, r"\(L,\) = \(2,\)"),
    (gaussian(compat=np.nan), ValueError, "compat must be finite"),
    (gaussian(compat="potts"), TypeError, "compat must be a number"),
    (gaussian(normalization=dcrf.DIAG_KERNEL), ValueError, "SYMMETRIC, got <KernelType.DIAG"),
    (gaussian(kernel=7), ValueError, "FULL_KERNEL, got 7"),
    (pairwise(FEATURES.T), ValueError, r"Pass features\.T"),
    (pairwise(FEATURES * np.nan), ValueError, "no width is 0"),
    (partial(create_pairwise_gaussian, 3, ()), ValueError, "at least one axis"),
    (guide((3, 3), 13, IMAGE), ValueError, "pass chdim=2"),
    (guide((3, 3), 13, IMAGE, 3), ValueError, "chdim must be an axis"),
    (guide(3, 3, np.full((2, 2), np.nan)), ValueError, "fill them first"),
    (labels(np.ones(4)), TypeError, r"labels\.astype\(np\.int64\)"),
    (labels(np.array([0, 255])), ValueError, "A void label such as 255"),
    (labels(np.array([-1, 1])), ValueError, r"0\.\.3 \(0 = unknown\).* got -1\.\.1"),
    (labels(np.array([0, 1]), n_labels=1), ValueError, "n_labels=2, zero_unsure=False"),
    (labels(np.array([1]), gt_prob=1.0), ValueError, r"gt_prob must be in \(0, 1\)"),
    (softmax(np.moveaxis(SOFTMAX, 0, -1)), ValueError, r"np\.moveaxis\(sm, -1, 0\)"),
    (softmax(SOFTMAX[0]), ValueError, r"np\.stack\(\[1 - p, p\]\)"),
    (softmax(np.zeros((3, 4, 5))), ValueError, "20 pixels have no probability"),
    (softmax(SOFTMAX * 9), ValueError, "go through a softmax"),
    (softmax(SOFTMAX * np.nan), ValueError, "0 / 0"),
    (softmax(SOFTMAX, scale=0), ValueError, r"scale must be in \(0, 1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), REFUSED)
def test_misuse_has_an_error_that_names_the_way_out(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()


def test_what_looks_wrong_or_is_old_warns() -> None:
    mask = np.array([[0, 1], [1, 0]])
    with pytest.warns(UserWarning, match="label 2 never occurs.*zero_unsure=False"):
        unary_from_labels(mask, 2, 0.7)
    unary_from_labels(mask, 2, 0.7, zero_unsure=False)
    unary_from_labels(mask, 3, 0.7)  # 1 of 3 labels and unknown: nothing to suspect
    with pytest.deprecated_call(match="unary_from_softmax"):
        old = softmax_to_unary(SOFTMAX, 0.8)
    np.testing.assert_array_equal(old, unary_from_softmax(SOFTMAX, 0.8, clip=None))
    with pytest.deprecated_call(match="unary_from_labels"):
        np.testing.assert_array_equal(
            compute_unary(mask + 1, 2), unary_from_labels(mask + 1, 2, 0.5)
        )
    cam = RNG.uniform(0.1, 1, (L, H, W))
    with pytest.warns(UserWarning, match="only their ratios count"):
        marginals = [bare_crf(unary_from_softmax(x)).inference(0) for x in (cam, cam / cam.sum(0))]
    np.testing.assert_allclose(marginals[0], marginals[1], atol=1e-5)


@pytest.mark.data
def test_equals_the_package_it_stands_in_for(reference: Mapping[str, Array]) -> None:
    """The cases written as that package's users write them."""
    for name, given in image_cases(reference).items():
        unary, image = reference[f"{name}/unary_logits"], reference[f"{name}/image"]
        num_labels, height, width = unary.shape
        options = dcrf.DIAG_KERNEL, NORMALIZATIONS[given["normalization"]]
        near, wide = (np.array(given[f"compat_{k}"], np.float32) for k in ("gaussian", "bilateral"))
        d = dcrf.DenseCRF2D(width, height, num_labels)
        d.setUnaryEnergy(-unary.reshape(num_labels, -1))
        d.addPairwiseGaussian(given["sxy_gaussian"], near, *options)
        d.addPairwiseBilateral(given["sxy"], given["srgb"], image, wide, *options)

        theirs = reference[f"{name}/q"].reshape(num_labels, -1)
        kl_per_pixel = reference[f"{name}/kl_per_pixel"]
        ours = d.inference(len(kl_per_pixel))
        # The same arithmetic in another order, amplified by up to 10 sharpening iterations.
        assert np.abs(ours - theirs).max() < 1e-3
        np.testing.assert_array_equal(ours.argmax(0), theirs.argmax(0))
        assert ours.dtype == np.float32
        assert ours.flags.c_contiguous

        q, tmp1, tmp2 = d.startInference()
        for expected in kl_per_pixel:
            d.stepInference(q, tmp1, tmp2)
            # What is asked for is 1 %; float32 and the order of sums leave far less.
            assert d.klDivergence(q) / q.shape[1] == pytest.approx(expected, rel=1e-3)
        np.testing.assert_array_equal(q, ours)


def test_unary_from_labels_by_hand() -> None:
    got = unary_from_labels(np.array([[1, 0], [3, 2]], np.uint8), 3, 0.6)
    sure, other, unsure = -np.log([0.6, 0.2, 1 / 3])
    columns = [[sure, other, other], [unsure] * 3, [other, other, sure], [other, sure, other]]
    np.testing.assert_allclose(got.T, columns, rtol=1e-6)  # float32
    zero_is_a_label = unary_from_labels(np.array([0, 2]), 3, 0.6, zero_unsure=False)
    np.testing.assert_allclose(zero_is_a_label[:, 0], [sure, other, other], rtol=1e-6)


def test_unary_from_softmax_by_hand() -> None:
    sm = np.array([[[1.0, 0.5]], [[0.0, 0.5]]])
    sm.flags.writeable = False
    expected = -np.log([[1, 0.5], [1e-5, 0.5]])
    np.testing.assert_allclose(unary_from_softmax(sm), expected, rtol=1e-6)  # float32
    assert not np.signbit(unary_from_softmax(sm)).any()
    less_trusted = -np.log([[0.9, 0.5], [0.1, 0.5]])
    np.testing.assert_allclose(unary_from_softmax(sm, scale=0.8), less_trusted, rtol=1e-6)
    assert np.isposinf(unary_from_softmax(sm, clip=None)[1, 0])


def test_a_scalar_attracts_and_a_vector_is_an_energy() -> None:
    def q(compat: Any) -> Floats:
        d = bare_crf()
        d.addPairwiseGaussian(2, compat)
        return d.inference(3)

    np.testing.assert_array_equal(q(2), q(np.array([-2.0, -2.0])))
    np.testing.assert_array_equal(q(2), q(-2 * np.eye(L)))
    np.testing.assert_array_equal(q([[0, 4], [0, 0]]), q([[0, 2], [2, 0]]))  # symmetrised
    alone = np.exp(-ENERGY).max(0).mean()
    assert q(2).max(0).mean() > alone > q(np.array([2.0, 2.0])).max(0).mean()


def test_an_impossible_label_stays_impossible() -> None:
    u = ENERGY.copy()
    u[0, :5] = np.inf
    d = small_crf(u)
    q = d.inference(5)
    assert (q[0, :5] == 0).all()
    assert np.isfinite(q).all()
    assert np.isfinite(d.klDivergence(q))


def test_a_step_starts_at_the_marginals_that_it_is_given() -> None:
    """Also where they are not those that the step before has left."""
    start, steps = SOFTMAX[::-1].reshape(L, -1), []
    for before in (0, 2):
        d = small_crf()
        q, *unused = d.startInference()
        for _ in range(before):
            d.stepInference(q, *unused)
        q[...] = start
        d.stepInference(q, *unused)
        steps.append(q)
    np.testing.assert_array_equal(steps[0], steps[1])
    d = small_crf(-np.log(start))
    expected, *unused = d.startInference()
    d.setUnaryEnergy(ENERGY)
    d.stepInference(expected, *unused)
    np.testing.assert_allclose(steps[0], expected, rtol=1e-5)  # of a logarithm and an exponential


def test_inputs_are_copied_and_left_alone() -> None:
    u, image, features = ENERGY.copy(), IMAGE.copy(), FEATURES.copy()
    d = bare_crf(u)
    d.addPairwiseBilateral(3, 40, image, 2)
    d.addPairwiseEnergy(features, 2)
    q = d.inference(3)
    d.klDivergence(q)
    for given, original in ((u, ENERGY), (image, IMAGE), (features, FEATURES)):
        np.testing.assert_array_equal(given, original)
        given[...] = 7
    np.testing.assert_array_equal(d.inference(3), q)


def test_layout_and_precision_of_the_arrays_do_not_matter() -> None:
    expected = small_crf().inference(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(small_crf().inference(3), expected)
    read_only = IMAGE[::-1].copy()[::-1]  # a negative stride
    read_only.flags.writeable = False
    for u in (np.asfortranarray(ENERGY), ENERGY.astype(np.float64), ENERGY.astype(">f4")):
        d = bare_crf(u)
        d.addPairwiseGaussian(sxy=np.float64(1.5), compat=np.int64(1))
        d.addPairwiseBilateral((3, 3), np.array([40, 40, 40]), read_only, 2.0)
        np.testing.assert_array_equal(d.inference(3), expected)


@pytest.mark.parametrize(("w", "h", "num_labels"), [(1, 1, 2), (5, 1, 1), (3, 4, 256)])
def test_edges(w: int, h: int, num_labels: int) -> None:
    if num_labels == 1:
        with pytest.warns(UserWarning, match="nothing to decide"):
            d = dcrf.DenseCRF2D(w, h, num_labels)
    else:
        d = dcrf.DenseCRF2D(w, h, num_labels)
    d.setUnaryEnergy(RNG.random((num_labels, w * h), np.float32) * 9)
    d.addPairwiseGaussian(3, 3)
    d.addPairwiseBilateral(80, 13, np.full((h, w, 3), 128, np.uint8), 10)
    np.testing.assert_allclose(d.inference(5).sum(0), 1, rtol=1e-5)  # float32, 256 terms


SCRIPT = """
import crfrnn.densecrf
crfrnn.densecrf.install()
import pydensecrf.densecrf as dcrf
import pydensecrf.utils as utils
from pydensecrf.utils import create_pairwise_gaussian, unary_from_labels
d = dcrf.DenseCRF(4, 2)
assert [int(c) for c in dcrf.NormalizationType] == [0, 1, 2, 3]
assert [int(c) for c in dcrf.KernelType] == [0, 1, 2]
assert utils.unary_from_labels is unary_from_labels is crfrnn.densecrf.unary_from_labels
crfrnn.densecrf.install()
"""


def test_install_answers_to_the_packages_own_name() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=120)
