"""The learning rates of the CRF-as-RNN recipe, in units of a mean loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import Parameter

if TYPE_CHECKING:
    from crfrnn.crf import CrfRnn


def param_groups(
    crf: CrfRnn,
    base_lr: float,
    *,
    kernel_multiplier: float = 1e4,
    compatibility_multiplier: float = 1e3,
    further_multiplier: float | None = None,
) -> list[dict[str, Any]]:
    """Optimiser groups of a CRF's parameters.

    The paper (Zheng et al., ICCV 2015, section 6) trains with SGD, momentum 0.99, batch 1 and
    a loss SUMMED over pixels, lr 1e-13 for the network; its released solver multiplies that by
    1e4 for the kernel weights and by 1e3 for the compatibility, the defaults here. For a loss
    AVERAGED over about 500 x 500 pixels 1e-13 is 2.5e-8, and so 2.5e-4 for the kernel weights
    and 2.5e-5 for the compatibility. With Adam the multipliers do not carry over: give smaller
    ones.

    Args:
        crf: whose parameters.
        base_lr: learning rate of the network, for a mean loss.
        kernel_multiplier: of the kernel weights, the widths, the steps and the two scales.
        compatibility_multiplier: of the compatibility.
        further_multiplier: of the weights of further kernels; None leaves them in the group of
            the others.

    Returns:
        Groups {"name", "params", "lr", "weight_decay": 0}; groups with nothing to learn are
        left out.
    """
    compatibility = list(crf.potentials.compatibility.parameters())
    further: list[Parameter] = []
    if further_multiplier is not None:
        weights = crf.potentials.kernel_weights
        names = [name for name in weights if name not in ("spatial", "bilateral")]
        further = [p for name in names for p in weights[name].parameters()]
    own = {id(p) for p in (*compatibility, *further)}
    others = [p for p in crf.parameters() if id(p) not in own]
    groups = [
        ("crf_kernel_weights", others, base_lr * kernel_multiplier),
        ("crf_further_weights", further, base_lr * (further_multiplier or 0.0)),
        ("crf_compatibility", compatibility, base_lr * compatibility_multiplier),
    ]
    return [
        {"name": name, "params": learnt, "lr": lr, "weight_decay": 0.0}
        for name, params, lr in groups
        if (learnt := [p for p in params if p.requires_grad])
    ]
