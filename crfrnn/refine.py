"""One call for NumPy users: probabilities and a photograph in, sharper probabilities out."""

from __future__ import annotations

import numpy as np
import torch

from crfrnn.arrays import Array, Floats, check_probabilities, check_rgb, tensor
from crfrnn.checks import check_count
from crfrnn.crf import CrfRnn
from crfrnn.filtering import Normalization
from crfrnn.native import empty

CLIP = 1e-5  # keeps -log P finite; what the users of post-hoc CRFs clip at


def refine(
    probabilities: Array,
    image: Array,
    preset: str = "deeplab_v2_resnet101",
    *,
    num_iterations: int | None = None,
    theta_alpha: float | None = None,
    theta_beta: float | None = None,
    theta_gamma: float | None = None,
    bilateral_weight: float | None = None,
    spatial_weight: float | None = None,
    normalization: Normalization | None = None,
) -> Floats:
    """Refine a network's probabilities with the edges of the image, by a dense CRF.

    q_0 = P, q_{t+1} = softmax(log P + sum_m w_m K_m q_t) with a spatial and a bilateral
    Gaussian kernel and Potts compatibility (Krahenbuhl and Koltun, NIPS 2011): `CrfRnn` in
    eval mode.

    Args:
        probabilities: (L, H, W) floats, labels first, that sum to one over the labels. One
            foreground map p of (H, W) is two labels: np.stack([1 - p, p]).
        image: (H, W, 3) uint8 RGB.
        preset: of `crfrnn.PRESETS`; the arguments below win over it.
        num_iterations: T.
        theta_alpha: bilateral kernel, position, pixels.
        theta_beta: bilateral kernel, colour, grey levels of 0..255.
        theta_gamma: spatial kernel, position, pixels.
        bilateral_weight: w of the bilateral kernel.
        spatial_weight: w of the spatial kernel.
        normalization: "symmetric", "after", "before" or "none".

    Returns:
        (L, H, W) float32, summing to one over the labels; the argmax over axis 0 is the mask.

    Raises:
        ValueError: labels not first, values that are no probabilities, an image of another
            size, an unknown preset, a setting out of range.
        TypeError: no NumPy array, or another dtype.
    """
    _check_grid(probabilities, image)
    probabilities = check_probabilities("probabilities", probabilities)
    if probabilities.shape[0] == 1:
        raise ValueError(
            "probabilities must be of at least two labels, got one: a foreground map p is "
            "np.stack([1 - p, p])."
        )
    num_labels, height, width = probabilities.shape
    image = check_rgb("image", image, (height, width), f"probabilities of {probabilities.shape}")
    if num_iterations is not None:  # here, so that the message names this argument
        check_count("num_iterations", num_iterations, 0)
    given = {
        "num_iterations_eval": num_iterations,
        "theta_alpha": theta_alpha,
        "theta_beta": theta_beta,
        "theta_gamma": theta_gamma,
        "bilateral_weight": bilateral_weight,
        "spatial_weight": spatial_weight,
        "normalization": normalization,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    crf = CrfRnn.from_preset(
        preset, num_labels, kernel_weights="scalar", compatibility="potts", **overrides
    ).eval()
    unary = tensor(probabilities).clamp_(CLIP, 1).log_()
    guide = tensor(image, np.uint8).permute(2, 0, 1)
    with torch.no_grad():
        q = crf.marginals(unary[None], guide[None])[0]
    refined: Floats = empty(*q.shape).copy_(q).numpy()
    return refined


def _check_grid(probabilities: object, image: object) -> None:
    """Raise where the axes give away that labels do not come first."""
    if not (isinstance(probabilities, np.ndarray) and isinstance(image, np.ndarray)):
        return  # named by the checks that follow
    shape = probabilities.shape
    if len(shape) == 3 and (*shape[:2], 3) == image.shape != (*shape[1:], 3):
        raise ValueError(
            f"probabilities must be (L, H, W), labels first, got {shape} for an image of "
            f"{image.shape}: pass np.moveaxis(probabilities, -1, 0)."
        )
    if len(shape) == 2:
        raise ValueError(
            f"probabilities must be (L, H, W), got {shape}: a foreground map p is two labels, "
            "np.stack([1 - p, p])."
        )
    if len(shape) != 3:
        raise ValueError(
            f"probabilities must be (L, H, W), got {shape}: pass one image at a time, without a "
            "batch axis."
        )
