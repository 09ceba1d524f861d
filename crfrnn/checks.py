"""Shape, dtype and range errors in one voice: what was expected, what came, what to do."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

FLOAT32 = torch.finfo(torch.float32)
NUMBERS = (int, float, np.integer, np.floating)
FARTHEST = 1e18  # of features: their squared distances are finite in float32
SURELY_FREE = 2**28  # bytes
LARGEST_PENALTY = 1e30  # sums of messages with it are finite in float32
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise unless value is one of the choices; name the nearest."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {choices}, got {value!r}.{hint}")


def check_flag(name: str, value: object) -> None:
    """Raise unless value is True or False: "no" would count as True."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}.")


def check_positive(name: str, value: object, unit: str) -> None:
    """Raise unless value is a number above zero, and still is one in float32."""
    if not (is_number(value) and FLOAT32.tiny <= value <= FLOAT32.max):
        raise ValueError(f"{name} must be a finite number above 0 ({unit}), got {value!r}.")


def check_finite(name: str, value: object) -> None:
    """Raise unless value is a finite number, and still is one in float32."""
    if not (is_number(value) and abs(value) <= FLOAT32.max):
        raise ValueError(f"{name} must be a finite number, got {value!r}.")


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether value is a number of Python or NumPy; True and False are none."""
    return isinstance(value, NUMBERS) and not isinstance(value, bool)


def check_count(name: str, value: object, minimum: int) -> None:
    """Raise unless value is an integer (Python's or NumPy's) of at least the minimum."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}.")


def check_theta(name: str, theta: object, unit: str) -> None:
    """Raise unless theta is a positive number, or a non-empty sequence of them."""
    values = theta if isinstance(theta, (list, tuple)) else [theta]
    if not values:
        raise ValueError(f"{name} must be a number or a sequence of them, got an empty one.")
    if isinstance(theta, (np.ndarray, Tensor)):
        raise ValueError(
            f"{name} must be a number or a list of them ({unit}), got {theta!r}: pass its tolist()."
        )
    for value in values:
        check_positive(name, value, unit)


def check_between(name: str, value: object, interval: Literal["[0, 1)", "(0, 1]"]) -> None:
    """Raise unless value is a number of the interval."""
    inside = is_number(value) and (0 <= value < 1 if interval == "[0, 1)" else 0 < value <= 1)
    if not inside:
        raise ValueError(f"{name} must be a number in {interval}, got {value!r}.")


def check_label_floor(label_floor: object, num_labels: int) -> None:
    """Raise unless label_floor leaves every pixel a label, the likeliest of which has 1 / L."""
    if not (is_number(label_floor) and 0 <= label_floor <= 1 / num_labels):
        raise ValueError(
            f"label_floor must be a probability from 0 to 1 / L = {1 / num_labels:.4g}, got "
            f"{label_floor!r}. 1e-3 moves marginals by some thousandths."
        )


def check_rows(unary: object) -> None:
    """Raise unless unary is (B, N, L) floating point with at least one of each."""
    if not isinstance(unary, Tensor):
        raise TypeError(f"unary must be a torch.Tensor (B, N, L), got {type(unary).__name__}.")
    if unary.ndim != 3 or unary.numel() == 0:
        raise ValueError(
            f"unary must be (B, N, L) rows, pixel-major, none of them 0, got "
            f"{tuple(unary.shape)}. unary.flatten(2).transpose(1, 2) makes rows of (B, L, H, W)."
        )
    if not unary.is_floating_point():
        raise TypeError(
            f"unary must be floating-point logits (higher = likelier), got {unary.dtype}."
        )


def check_penalties(penalties: Sequence[Tensor] | Tensor, num_kernels: int, like: Tensor) -> None:
    """Raise unless there is one (L, L) penalty per kernel, in the dtype of like (B, N, L)."""
    single = isinstance(penalties, Tensor)  # a sequence too, of its rows
    if single or len(penalties) != num_kernels:
        came = "one tensor" if single else f"{len(penalties)} of them"
        raise ValueError(
            f"penalties must be a sequence of {num_kernels} (L, L) tensors, one per kernel, "
            f"got {came}. An inference takes a sequence over iterations of such sequences: "
            "pass [penalties] where all iterations share them."
        )
    num_labels = like.shape[-1]
    for penalty in penalties:
        if not isinstance(penalty, Tensor):
            raise TypeError(
                f"a penalty must be a torch.Tensor ({num_labels}, {num_labels}), got "
                f"{type(penalty).__name__}. An inference takes one sequence of penalties for each "
                "iteration, an energy takes that of one iteration."
            )
        if tuple(penalty.shape) != (num_labels, num_labels):
            raise ValueError(
                f"a penalty must be ({num_labels}, {num_labels}) for a unary of {num_labels} "
                f"labels, got {tuple(penalty.shape)}."
            )
        if penalty.dtype != like.dtype or penalty.device != like.device:
            raise TypeError(
                f"a penalty must be {like.dtype} on {like.device} like the unary, got "
                f"{penalty.dtype} on {penalty.device}. Pass penalty.to(unary)."
            )


def check_pairwise(pairwise: Sequence[Sequence[Tensor]], num_kernels: int, unary: Tensor) -> None:
    """Raise unless pairwise holds penalties for at least one iteration."""
    if len(pairwise) == 0:
        raise ValueError(
            "pairwise must hold the penalties of at least one iteration, got an empty sequence. "
            "Without kernels, pass [[]]."
        )
    for penalties in pairwise:
        check_penalties(penalties, num_kernels, unary)


def check_no_transform() -> None:
    """Raise inside `torch.func.grad`, `vmap` and their like: no operator of ours takes part."""
    if not torch.compiler.is_compiling() and peek_interpreter_stack() is not None:
        raise RuntimeError(
            "crfrnn does not take part in torch.func.grad, vmap, jvp and their like. A batch "
            "(B, L, H, W) needs no vmap; for gradients of parameters that are passed in, use "
            "torch.autograd.grad of torch.func.functional_call(crf, parameters, (unary, image))."
        )


def _are_swapped(unary: Tensor, image: Tensor, num_labels: int) -> bool:
    """Tell whether only the second argument can be the unary, or only the first an image."""
    if unary.ndim < 3 or image.ndim < 3 or image.shape[1] != num_labels:
        return False
    like_an_image = unary.shape[1] in (1, 3, 4)
    return (like_an_image and unary.shape[1] != num_labels) or unary.dtype == torch.uint8


def check_unary(unary: object, num_labels: int, image: object = None) -> None:
    """Raise unless unary is (B, L, *grid) floating logits without NaN or infinity."""
    if not isinstance(unary, Tensor):
        raise TypeError(
            f"unary must be a torch.Tensor (B, {num_labels}, H, W), got {type(unary).__name__}."
        )
    if isinstance(image, Tensor) and _are_swapped(unary, image, num_labels):
        raise ValueError(
            f"the arguments are swapped: unary comes first, image second; got {tuple(unary.shape)} "
            f"and {tuple(image.shape)} for {num_labels} labels. Pass crf(unary, image)."
        )
    if not 3 <= unary.ndim <= 5 or unary.shape[1] != num_labels:
        raise ValueError(
            f"unary must be (B, {num_labels}, H, W) logits, or with one or three axes in place of "
            f"H, W, got {tuple(unary.shape)}. num_labels of this layer is {num_labels}; the label "
            "axis is axis 1."
        )
    if unary.dtype not in FLOATING:
        raise TypeError(
            f"unary must be floating-point logits (higher = likelier), got {unary.dtype}."
        )
    check_dense("unary", unary)
    if unary.numel() == 0:
        raise ValueError(f"unary must hold at least one pixel, got {tuple(unary.shape)}.")
    if not torch.compiler.is_compiling() and not all_finite(unary):
        raise ValueError(
            "unary must be finite, got NaN or infinite values. Probabilities of exactly 0 have "
            "an infinite logarithm: clamp them first, for example p.clamp_min(1e-5).log()."
        )


def check_image(image: object, unary: Tensor, image_range: str) -> None:
    """Raise unless image is (B, C, *grid) on the grid of the unary, in its range."""
    if not isinstance(image, Tensor):
        raise TypeError(
            f"image must be a torch.Tensor (B, 3, H, W), got {type(image).__name__}: "
            "torch.from_numpy(image).permute(2, 0, 1)[None] makes one of an (H, W, 3) array."
        )
    check_grid("image", image, unary)
    if image.dtype == torch.uint8:
        return
    if image.dtype not in FLOATING:
        raise TypeError(f"image must be uint8 or floating point in 0..255, got {image.dtype}.")
    if torch.compiler.is_compiling():
        return  # what follows depends on the values
    low, high = torch.stack(image.detach().aminmax()).tolist()  # a GPU is waited for once
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("image must be finite, got NaN or infinite values.")
    # All 0 is a black image in either range.
    if image_range == "0..255" and (low < 0 or high > 255 or 0 < high <= 1):
        raise ValueError(
            f"image must be in 0..255, got values in {low:.4g}..{high:.4g}. theta_beta is in "
            "grey levels of 0..255: pass the image as it was before normalisation (uint8, or "
            "floating point multiplied back to 0..255 with the mean added again). For a guide in "
            "other units, build the layer with image_range='any' and theta_beta in these units."
        )


def check_guides(guides: object, names: Sequence[str], unary: Tensor) -> None:
    """Raise unless guides hold one finite (B, C, *grid) tensor for each name."""
    given = {} if guides is None else guides
    if not isinstance(given, Mapping):
        raise TypeError(
            "guides must be a mapping from the names of the further kernels to tensors, got "
            f"{type(given).__name__}: pass guides={{name: tensor}}."
        )
    if set(given) != set(names):
        raise ValueError(
            f"guides must be given for {sorted(names)}, the kernels that take one, got "
            f"{sorted(map(str, given))}."
        )
    for name, guide in given.items():
        if not isinstance(guide, Tensor) or guide.dtype not in FLOATING:
            came = guide.dtype if isinstance(guide, Tensor) else type(guide).__name__
            raise TypeError(
                f"guide {name!r} must be a floating-point tensor (B, C, *grid), got {came}."
            )
        check_grid(f"guide {name!r}", guide, unary)


def check_mask(mask: object, unary: Tensor) -> None:
    """Raise unless mask is None or (B, *grid) bool."""
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        came = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a bool tensor, True for pixels of an image, got {came}.")
    expected = (unary.shape[0], *unary.shape[2:])
    check_dense("mask", mask)
    if tuple(mask.shape) != expected:
        raise ValueError(
            f"mask must be {expected} for a unary of {tuple(unary.shape)}, got "
            f"{tuple(mask.shape)}: one value for each pixel, without a channel axis."
        )
    if mask.device != unary.device:
        raise ValueError(
            f"mask and unary must be on one device, got {mask.device} and {unary.device}."
        )


def check_grid(name: str, guide: Tensor, unary: Tensor) -> None:
    """Raise unless guide is (B, C, *grid) for the B and the grid of the unary, on its device."""
    expected = (unary.shape[0], *unary.shape[2:])
    if guide.ndim != unary.ndim or (guide.shape[0], *guide.shape[2:]) != expected:
        shape = ", ".join(["(B", "C", *map(str, unary.shape[2:])]) + ")"
        raise ValueError(
            f"{name} must be {shape} with B = {unary.shape[0]} to match a unary of "
            f"{tuple(unary.shape)}, got {tuple(guide.shape)}. Resize the unary to the image "
            "(bilinear) or the image to the unary; channels come before height and width."
        )
    if guide.shape[1] == 0:
        raise ValueError(f"{name} must have at least one channel, got {tuple(guide.shape)}.")
    if guide.device != unary.device:
        raise ValueError(
            f"{name} and unary must be on one device, got {guide.device} and {unary.device}."
        )
    check_dense(name, guide)


def check_dense(name: str, tensor: Tensor) -> None:
    """Raise unless the tensor holds all of its values."""
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be dense, got {tensor.layout}. Pass its to_dense().")
    if tensor.is_meta:
        raise TypeError(f"{name} must hold values, got a tensor on the meta device.")


def all_finite(tensor: Tensor) -> bool:
    """Tell whether no element is infinite or NaN, in one pass and without a copy."""
    extremes = torch.stack(tensor.detach().aminmax())
    return bool(torch.isfinite(extremes).all())


def check_widths(theta: Tensor) -> None:
    """Raise unless every theta is finite and above 0, as it was before it learnt."""
    if not torch.compiler.is_compiling() and not ((theta > 0) & torch.isfinite(theta)).all():
        raise ValueError(
            f"theta must be finite and above 0, got {theta.detach().cpu().tolist()}. Where it "
            "learns, it has diverged: lower its learning rate."
        )


def check_features(features: Tensor) -> None:
    """Raise unless features are (B, N, d) and finite."""
    if features.ndim != 3 or features.shape[2] == 0:
        raise ValueError(f"features must be (B, N, d), got {tuple(features.shape)}.")
    if torch.compiler.is_compiling():
        return
    if not features.detach().abs().amax() <= FARTHEST:  # NaN as well
        raise ValueError(
            "features must be finite and below 1e18, got NaN or larger values. Check the guide, "
            "and that no theta is near 0 or, where it learns, has diverged."
        )


def check_sizes(penalties: Sequence[Tensor]) -> None:
    """Raise where a penalty is NaN or so large that sums with it could overflow.

    On a CPU alone: a GPU would be waited for.
    """
    for penalty in penalties:
        if penalty.device.type != "cpu" or torch.compiler.is_compiling():
            return
        if not penalty.detach().abs().amax() <= LARGEST_PENALTY:
            raise ValueError(
                "the kernel weights times the compatibility must be finite and below 1e30, got "
                f"{penalty.detach().abs().amax().item():.3g}. Where they learn, they have "
                "diverged: lower their learning rate."
            )


def warn_of_sure_start(unary: Tensor, logits: Tensor) -> None:
    """Warn where a network that knows nothing yet looks sure behind the CRF.

    Args:
        unary: (B, L, *grid), of which the first image is looked at.
        logits: behind the CRF.
    """
    num_labels = unary.shape[1]
    if num_labels == 1 or unary.is_meta:
        return
    before, behind = (_unsureness(maps[:1].detach().float()) for maps in (unary, logits))
    if before > 0.8 and behind < 0.2:
        warnings.warn(
            f"the CRF looks sure where its unary is not: the mean entropy falls from {before:.2f} "
            f"to {behind:.2f} of ln L. Behind a network that starts from random weights, the first "
            f"losses are far too high: take CrfRnn.from_scratch({num_labels}), whose kernel "
            "weights begin small. Behind a trained network, look whether the unary is its logits.",
            UserWarning,
            stacklevel=5,
        )


def _unsureness(logits: Tensor) -> float:
    """The mean entropy of the softmax over the labels, in units of ln L."""
    log_q = logits.log_softmax(1)
    entropy = -(log_q.exp() * log_q.clamp(min=-1e4)).sum(1).mean()
    return entropy.item() / math.log(logits.shape[1])


def check_memory(unary: Tensor, *, stored: int) -> None:
    """Raise where a problem cannot fit into the memory that is free.

    Counted is what surely is there at once: the rows of the unary, two of their size to work
    with, and q of each stored iteration. Nothing is asked below `SURELY_FREE`.

    Args:
        unary: (B, L, *grid).
        stored: iterations whose q is kept for the gradient.
    """
    if torch.compiler.is_compiling():
        return
    needed = unary.numel() * max(unary.element_size(), 4) * (3 + stored)
    check_free(needed, f"a unary of {tuple(unary.shape)}", unary.device)


def check_free(needed: int, what: str, device: torch.device | str = "cpu") -> None:
    """Raise where so many bytes are surely not free; nothing is asked below `SURELY_FREE`."""
    if needed < SURELY_FREE:
        return
    free = free_memory(torch.device(device))
    if free is not None and needed > free:
        raise MemoryError(
            f"{what} needs at least {needed / 2**30:.1f} GiB on {device}, and "
            f"{free / 2**30:.1f} GiB are free. Cut the image into overlapping "
            "tiles, run the CRF on a coarser grid (theta in its pixels), leave unlikely labels "
            "out (label_floor), or give fewer images at a time."
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated there, swap left out; None where that cannot be told."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    import resource  # where there is /proc

    available = next((1024 * k for k in kibibytes), None)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if available is None or limit == resource.RLIM_INFINITY:
        return available
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return min(available, max(0, limit - pages * resource.getpagesize()))
