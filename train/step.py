"""One optimiser step: forward, loss, backward, and the checks before the weights move."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data import Batch
from eval import processes
from models import Segmenter, SegmenterOutput
from train.arms import Arm
from train.fit_config import FitConfig
from train.objective import loss_terms


class NonFiniteLoss(FloatingPointError):
    """A loss or a gradient is infinite or no number; the weights have not moved."""


class NonFiniteLogits(FloatingPointError):
    """The network's logits are infinite or no number, here or in another process.

    Args:
        here: in this process.
    """

    def __init__(self, *, here: bool) -> None:
        self.here = here
        super().__init__("the network's logits are not finite")


class TrainedForward(nn.Module):
    """Both maps of logits of a batch; without gradient, and without work, where nothing learns.

    A module because DistributedDataParallel wraps one: it averages the gradients of what
    this forward uses.

    Args:
        segmenter: network and CRF.
        arm: what learns.
        precision: of the network; the CRF computes in float32.
    """

    def __init__(self, segmenter: Segmenter, arm: Arm, precision: str) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.arm = arm
        self.precision = precision

    def forward(self, images: Tensor) -> SegmenterOutput:
        """Logits of images (B, 3, H, W), RGB in 0..255.

        Raises:
            NonFiniteLogits: there is nothing that a CRF could refine; in every process.
        """
        image = images.float()
        half = torch.autocast(image.device.type, torch.bfloat16, self.precision == "bfloat16")
        with torch.set_grad_enabled(self.arm.network), half:
            unary, scales = self.segmenter.unary_and_scales(image)
        if not self.arm.crf:
            return SegmenterOutput(unary, None, scales)
        lost = ~torch.isfinite(unary).all()
        if processes.largest(lost.int()):
            raise NonFiniteLogits(here=bool(lost))
        return SegmenterOutput(unary, self.segmenter.refine(unary, image), scales)


def over_processes(forward: TrainedForward) -> nn.Module:
    """The forward whose backward averages the gradients of all processes."""
    if processes.num_processes() == 1:
        return forward
    return DistributedDataParallel(forward)


def train_step(
    forward: nn.Module,
    segmenter: Segmenter,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    config: FitConfig,
    arm: Arm,
) -> dict[str, Tensor]:
    """One optimiser step over the batches whose gradients it adds up.

    Returns:
        The mean of each loss term over the batches of this process, and the lengths of the
        gradients before any cut, "gradient_norm" of the network and "gradient_norm_crf".

    Raises:
        NonFiniteLoss: names the images. No weight has moved.
    """
    # Behind a frozen network the unary's loss teaches nothing.
    loss_config = config.loss if arm.network else replace(config.loss, unary=0.0)
    optimizer.zero_grad(set_to_none=True)
    means: dict[str, Tensor] = {}
    names: list[str] = []
    suspects: list[str] = []
    for batch in batches:
        with nullcontext() if batch is batches[-1] else without_averaging(forward):
            try:
                output = forward(batch.images)
            except NonFiniteLogits as error:
                found = of_all_processes(batch.names if error.here else ())
                raise NonFiniteLoss(f"{error} {on_images(found)}") from error
            terms = loss_terms(output, batch.masks, loss_config)
            (terms["loss"] / len(batches)).backward()  # type: ignore[no-untyped-call]
        for name, value in terms.items():
            means[name] = means.get(name, 0.0) + value.detach() / len(batches)
        names += batch.names
        if not torch.isfinite(terms["loss"]):
            suspects += batch.names
    norms = gradient_norms(segmenter, arm)
    finite = torch.stack([torch.isfinite(value) for value in (means["loss"], *norms.values())])
    if processes.largest((~finite.all()).int()):
        found = of_all_processes(suspects) or of_all_processes(names)
        raise NonFiniteLoss(f"{describe_failure(means['loss'], norms)} {on_images(found)}")
    if arm.network and config.clip_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(
            segmenter.network.parameters(), config.clip_norm, norms["gradient_norm"]
        )
    optimizer.step()
    return means | norms


def without_averaging(forward: nn.Module) -> AbstractContextManager[None]:
    """The context in which a backward keeps its gradients to its own process."""
    if isinstance(forward, DistributedDataParallel):
        return forward.no_sync()
    return nullcontext()


def gradient_norms(segmenter: Segmenter, arm: Arm) -> dict[str, Tensor]:
    """Euclidean length of the gradient of network and CRF, where they learn."""
    parts: dict[str, nn.Module | None] = {
        "gradient_norm": segmenter.network if arm.network else None,
        "gradient_norm_crf": segmenter.crf if arm.crf else None,
    }
    return {
        name: torch.nn.utils.get_total_norm(
            [p.grad for p in part.parameters() if p.grad is not None]
        )
        for name, part in parts.items()
        if part is not None
    }


def describe_failure(loss: Tensor, norms: dict[str, Tensor]) -> str:
    """What is not finite in this process, or what is where another one has failed."""
    if not torch.isfinite(loss):
        return f"the loss is {loss.item()}"
    lengths = ", ".join(f"{name} is {value.item():.4g}" for name, value in norms.items())
    return f"the loss is {loss.item():.4g}, but {lengths}"


def of_all_processes(names: Sequence[str]) -> list[str]:
    """The names that every process has to tell."""
    return [name for found in processes.gathered(list(names)) for name in found]


def on_images(names: Sequence[str]) -> str:
    """The end of the sentence that says what is not finite."""
    return (
        f"on the images {', '.join(names)}: lower --fit.lr or --fit.crf-lr, or look at these "
        "images."
    )
