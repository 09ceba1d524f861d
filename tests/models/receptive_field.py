"""Measure the receptive field of a network by the gradient.

The field does not depend on the weights as long as none is zero and nothing is cut off, so it
is measured on a copy whose layers all pass positive values on: one pixel high, since every
network here treats both axes alike.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.layers import InputNormalization

FIRST_WIDTH = 1025  # 64 k + 1, and so are its doublings: corners coincide at every stride
MAX_WIDTH = 32769

PASSED_ON = (InputNormalization, _BatchNorm, nn.ReLU, nn.ReLU6, nn.Dropout)

View = Callable[[nn.Module, Tensor], Tensor]
"""Picks the map (1, C, 1, w) whose field is measured: of the network and an image."""


def receptive_field(network: nn.Module, view: View | None = None) -> int:
    """Count the pixels in a row that the central cell of a map sees.

    Image pooling, which sees the whole image, is left out.

    Args:
        network: stays as it is; may lie on the meta device.
        view: which map; the logits if not given.

    Raises:
        ValueError: it sees more than `MAX_WIDTH` pixels.
    """
    twin = passing(network)
    width = FIRST_WIDTH
    while width <= MAX_WIDTH:
        image = torch.full((1, 3, 1, width), 200.0, dtype=torch.float64, requires_grad=True)
        seen = twin(image) if view is None else view(twin, image)
        (gradient,) = torch.autograd.grad(seen[..., seen.shape[-1] // 2].sum(), image)
        columns = gradient.abs().sum(dim=(0, 1, 2)).nonzero()
        first, last = int(columns[0]), int(columns[-1])
        if first > 0 and last < width - 1:
            return last - first + 1
        width = 2 * width - 1
    raise ValueError(f"the receptive field is not smaller than {MAX_WIDTH} pixels.")


def passing(network: nn.Module) -> nn.Module:
    """Copy a network for rows of pixels, in eval mode and float64; it passes positive values on.

    Convolutions average over the taps of a row and over channels, maxima become means, and
    activations, normalisation and dropout do nothing.
    """
    twin = copy.deepcopy(network).double().eval().requires_grad_(False)
    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.Conv2d):
            flatten(module)
            shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
            value = 0.0 if "image_pooling" in name else 1 / math.prod(shape[1:])
            module.weight = nn.Parameter(torch.full(shape, value).double(), requires_grad=False)
            module.bias = None
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            size, stride, padding = (
                n if isinstance(n, int) else n[1]
                for n in (module.kernel_size, module.stride, module.padding)
            )
            swap(twin, name, nn.AvgPool2d((1, size), (1, stride), (0, padding)))
        elif isinstance(module, PASSED_ON):
            swap(twin, name, nn.Identity().eval())
    return twin


def flatten(layer: nn.Conv2d) -> None:
    """Leave one row of a convolution's taps."""
    layer.kernel_size = (1, layer.kernel_size[1])
    layer.stride = (1, layer.stride[1])
    layer.dilation = (1, layer.dilation[1])
    assert isinstance(layer.padding, tuple)
    layer.padding = (0, layer.padding[1])


def swap(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module in the place of the one of that dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)


def features_of(index: int) -> View:
    """Make a view of one of the backbone's feature maps."""

    def view(network: nn.Module, image: Tensor) -> Tensor:
        maps: Sequence[Tensor] = network.get_submodule("backbone")(image)
        return maps[index]

    return view
