"""The CRF of one image under many settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from crfrnn import CrfRnn
from models import CrfConfig
from models.crf import build_crf
from models.layers import shrink, shrink_image


@dataclass(frozen=True)
class Filtered:
    """The CRF of one setting, bound to an image.

    Attributes:
        setting: its values.
        crf: the layer, in eval mode.
        logits: what it makes of the unary, (1, L, h, w), on the grid it runs on.
        paid: sum_m w_m K_m 1, (1, 1, h, w): what a label pays that nobody takes.
    """

    setting: CrfConfig
    crf: CrfRnn
    logits: Tensor
    paid: Tensor


def widths(setting: CrfConfig) -> tuple[float, ...]:
    """What the filters of a setting depend on."""
    return setting.theta_gamma, setting.theta_alpha, setting.theta_beta


def by_widths(settings: Sequence[CrfConfig]) -> list[list[CrfConfig]]:
    """The settings in groups that share their filters: these are most of the cost."""
    groups = groupby(sorted(settings, key=widths), key=widths)
    return [list(group) for _, group in groups]


def filtered(unary: Tensor, image: Tensor, settings: Sequence[CrfConfig]) -> Iterator[Filtered]:
    """Every setting's CRF in turn, group by group.

    Args:
        unary: (1, L, H, W) logits; L need not be all labels.
        image: (1, 3, H, W), RGB in 0..255.
        settings: of one resolution.
    """
    for same in by_widths(settings):
        crfs = [build_crf(s, unary.shape[1]).to(unary.device).eval() for s in same]
        small_unary = shrink(unary, same[0].resolution)
        kernels = crfs[0].potentials.build_kernels(shrink_image(image, same[0].resolution))
        one = small_unary.new_ones(1, small_unary[0, 0].numel(), 1)
        degrees = [kernel(one).reshape(1, 1, *small_unary.shape[2:]) for kernel in kernels]
        for setting, crf in zip(same, crfs, strict=True):
            yield Filtered(setting, crf, crf.infer(small_unary, kernels), _paid(crf, degrees))


def _paid(crf: CrfRnn, degrees: Sequence[Tensor]) -> Tensor:
    """sum_m w_m K_m 1 of a layer's last iteration, from K_m 1 of its kernels."""
    # () where tied, (T,) where every iteration has its own.
    weights = [crf.potentials.weight(name).reshape(-1)[-1] for name in crf.potentials.kernels]
    return torch.stack([w * k for w, k in zip(weights, degrees, strict=True)]).sum(0)
