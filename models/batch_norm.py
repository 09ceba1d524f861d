"""Batch normalisation of a whole network: its numbers, and keeping it as it is."""

from __future__ import annotations

from typing import TypeVar

from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

MAX_MOMENTUM = 0.1


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Every batch normalisation layer, timm's included."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


M = TypeVar("M", bound=nn.Module)


def synchronized(module: M) -> M:
    """The module with statistics over all processes; in place but for the module itself.

    By timm's function: PyTorch's own drops the activation inside timm's BN layers.
    """
    return convert_sync_batchnorm(module)  # type: ignore[no-any-return, no-untyped-call]


def set_momentum(module: nn.Module, momentum: float) -> None:
    """Set the momentum of every BN: new statistics = (1 - momentum) old + momentum batch.

    Args:
        module: changed in place.
        momentum: PyTorch's, that is 1 minus TensorFlow's decay: 3e-4 in DeepLab v3 and v3+.

    Raises:
        ValueError: it is outside (0, 0.1], where a TensorFlow decay would lie.
    """
    if not 0 < momentum <= MAX_MOMENTUM:
        raise ValueError(
            f"batch_norm_momentum must be in (0, {MAX_MOMENTUM}], got {momentum}: PyTorch's "
            f"momentum is 1 minus TensorFlow's decay. Did you mean {1 - momentum:.4g}?"
        )
    for norm in batch_norms(module):
        norm.momentum = momentum


def set_eps(module: nn.Module, eps: float) -> None:
    """Set what every BN adds to the variance."""
    for norm in batch_norms(module):
        norm.eps = eps


def freeze(module: nn.Module) -> None:
    """Stop learning the affine parameters of every BN; `keep_frozen` keeps its statistics."""
    for norm in batch_norms(module):
        norm.requires_grad_(False)


def keep_frozen(module: nn.Module) -> None:
    """Put every BN in eval mode: to be called whenever the module enters train mode."""
    for norm in batch_norms(module):
        norm.eval()
