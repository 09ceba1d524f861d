"""What every public entry refuses: what was expected, what came, what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import CrfRnn
from tests.crfrnn.small_layers import random_inputs

UNARY, IMAGE = random_inputs()


@pytest.mark.parametrize(
    ("unary", "image", "error", "message"),
    [
        (UNARY, IMAGE / 255, ValueError, r"0\.\.255, got values in .*before normalisation"),
        (UNARY, IMAGE - 128, ValueError, r"0\.\.255, got values in -"),
        (UNARY, IMAGE * 2, ValueError, r"0\.\.255"),
        (UNARY, IMAGE.int(), TypeError, "uint8 or floating point"),
        (UNARY, IMAGE * torch.nan, ValueError, "image must be finite"),
        (UNARY, IMAGE[..., :5], ValueError, "to match a unary"),
        (UNARY, IMAGE[:1], ValueError, "to match a unary of"),
        (UNARY, IMAGE.movedim(1, 3), ValueError, "channels come before"),
        (UNARY[:, :2], IMAGE, ValueError, r"\(B, 3, H, W\)"),
        (UNARY[0], IMAGE, ValueError, r"\(B, 3, H, W\)"),
        (UNARY.long(), IMAGE, TypeError, "floating-point logits"),
        (UNARY / 0, IMAGE, ValueError, "unary must be finite"),
        (UNARY[..., :0], IMAGE[..., :0], ValueError, "at least one pixel"),
    ],
)
def test_bad_input(unary: Tensor, image: Tensor, error: type[Exception], message: str) -> None:
    before = unary.detach().clone(), image.detach().clone()
    with pytest.raises(error, match=message):
        CrfRnn(3)(unary, image)
    assert torch.equal(unary.nan_to_num(), before[0].nan_to_num())
    assert torch.equal(image.detach().nan_to_num(), before[1].nan_to_num())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labels": 0}, "num_labels must be an integer of at least 1"),
        ({"num_labels": 3, "theta_alpha": 0.0}, "theta_alpha .*pixels"),
        ({"num_labels": 3, "theta_beta": -1.0}, "theta_beta .*grey levels"),
        ({"num_labels": 3, "theta_gamma": float("nan")}, "theta_gamma"),
        ({"num_labels": 3, "theta_gamma": 1e-40}, "theta_gamma"),  # 0 in float32
        ({"num_labels": 3, "theta_alpha": 1e39}, "theta_alpha"),  # infinite in float32
        ({"num_labels": 3, "theta_alpha": "80"}, "theta_alpha .*got '80'"),
        ({"num_labels": 3, "bilateral_weight": float("nan")}, "bilateral_weight must be a finite"),
        ({"num_labels": 3, "spatial_weight": float("inf")}, "spatial_weight must be a finite"),
        ({"num_labels": 3, "output_scale": 0.0}, "output_scale"),
        ({"num_labels": 3, "num_iterations": -1}, "num_iterations"),
        ({"num_labels": 3, "normalization": "symetric"}, "Did you mean 'symmetric'"),
        ({"num_labels": 3, "kernel_weights": "vector"}, "kernel_weights must be one of"),
        ({"num_labels": 3, "bilateral_filter": "separable"}, "bilateral_filter"),
    ],
)
def test_bad_configuration(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrfRnn(**options)


def test_arrays_are_named_as_such() -> None:
    with pytest.raises(TypeError, match=r"got ndarray: torch\.from_numpy"):
        CrfRnn(3)(UNARY, IMAGE.numpy())
    with pytest.raises(TypeError, match="unary must be a torch"):
        CrfRnn(3)(UNARY.numpy(), IMAGE)


@pytest.mark.parametrize("theta_beta", [1e-3, 1e-6, 1e-30])
def test_a_width_too_small_for_the_lattice_is_an_error(theta_beta: float) -> None:
    """16-bit keys that wrap are a memory error of the most used package."""
    crf = CrfRnn(3, theta_beta=theta_beta)
    with pytest.raises(ValueError, match="theta is too small"):
        crf(UNARY.float(), IMAGE.float())


def test_a_black_image_is_an_image() -> None:
    for black in (torch.zeros(2, 3, 7, 6), torch.zeros(2, 3, 7, 6, dtype=torch.uint8)):
        assert CrfRnn(3)(UNARY, black).isfinite().all()


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'deeplab_v2_vgg16'"):
        CrfRnn.from_preset("deeplab_v2_vgg", 21)


def test_loading_is_strict() -> None:
    state = CrfRnn(3).state_dict()
    state["bilateral_ker_weights"] = state.pop("potentials.kernel_weights.bilateral.diagonal")
    with pytest.raises(RuntimeError, match="bilateral_ker_weights"):
        CrfRnn(3).load_state_dict(state)
