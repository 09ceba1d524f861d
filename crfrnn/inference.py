"""Mean-field inference, unrolled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, ParamSpec, final, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from crfrnn.checks import (
    check_between,
    check_choice,
    check_count,
    check_pairwise,
    check_positive,
    check_rows,
)
from crfrnn.filters import Filter, Normalized
from crfrnn.ops import (
    STORAGE,
    Implementation,
    Kernel,
    flat,
    mean_field_updates,
    rows_product,
    rows_softmax,
    serves_updates,
)

# The mixture of two distributions over labels, given and returned as logits.


def log_mixture(logits: Tensor, unary: Tensor, weight: float) -> Tensor:
    """log((1 - m) softmax(logits) + m softmax(unary)), over the last axis.

    A mean field that is sure and wrong passes no gradient; the mixture always passes that of
    the unary (Le-Huu and Alahari, NeurIPS 2021, who train with m = 0.5 and test with 0).

    Args:
        logits: (B, N, L).
        unary: (B, N, L).
        weight: m, in (0, 1).
    """
    return torch.logaddexp(
        logits.log_softmax(dim=-1) + math.log1p(-weight),
        unary.log_softmax(dim=-1) + math.log(weight),
    )


# Mean-field inference of the dense CRF, and what every inference has in common.
#
# Sign convention, stated once: logits are higher for likelier labels, the compatibility mu is a
# PENALTY and is subtracted,
#
#     logits_{t+1} = unary - sum_m (K_m q_t) P_m',   P_m = mu W_m,   q_t = softmax(logits_t).
#
# With Potts, mu = 1 - I and a scalar weight w, this equals unary + w K q up to a constant over
# labels.

Pairwise = Sequence[Sequence[Tensor]]  # over iterations, over kernels: (L, L) penalties
Observer = Callable[[Tensor], None]  # is shown q_0, q_1, ...: (B, N, L) without gradient
Memory = Literal["store", "recompute"]
Storage = Literal["float32", "bfloat16", "float16"]
MEMORIES: tuple[str, ...] = get_args(Memory)
P = ParamSpec("P")


class Inference:
    """Find the marginals: frozen options, called on any number of problems.

    A dataclass whose fields are the options of `solve`, the function that does it.
    """

    solve: ClassVar[Callable[..., Tensor]]

    def __call__(
        self,
        unary: Tensor,
        kernels: Sequence[Filter],
        pairwise: Pairwise,
        num_iterations: int,
        *,
        observe: Observer | None = None,
    ) -> Tensor:
        """Return logits whose softmax is the marginals; arguments as in `mean_field`."""
        options = vars(self)
        return self.solve(unary, kernels, pairwise, num_iterations, observe=observe, **options)


def mean_field(
    unary: Tensor,
    kernels: Sequence[Filter],
    pairwise: Pairwise,
    num_iterations: int,
    *,
    damping: float = 0.0,
    tolerance: float | None = None,
    memory: Memory = "store",
    storage: Storage = "float32",
    observe: Observer | None = None,
) -> Tensor:
    """Parallel mean-field updates (Zheng et al., ICCV 2015, algorithm 1).

    One iteration: normalise, weight and apply the compatibility transform, pass messages
    through every kernel, add the unary. The first messages are computed from
    q_0 = softmax(unary). With damping a,

        logits_{t+1} = (1 - a) update(q_t) + a logits_t,

    which has the same fixed points and does not oscillate where labels repel.

    Args:
        unary: (B, N, L) logits.
        kernels: K_m, each normalised as wanted.
        pairwise: for each iteration, one (L, L) penalty mu W_m per kernel: what label l
            (row) pays for a unit of message of label l' (column). One entry means that all
            iterations share it; where there are fewer than iterations, the last is reused.
        num_iterations: T; 0 returns the unary.
        damping: a, in [0, 1).
        tolerance: an image whose q changes by at most this in one iteration keeps its logits
            from there on; None runs all iterations. Meant for evaluation: what remains of the
            loop depends on the data. An image gives the same result in any batch.
        memory: what the backward pass keeps of each iteration. "store": what autograd saves,
            which is q alone, (B, N, L), while the filters save nothing. "recompute": the
            logits, (B, N, L), whatever the filters would save (they do where the kernels
            learn), for one more forward pass.
        storage: dtype of q and of the messages that the filters take; their sums, logits and
            gradients are not rounded. Half precision halves what "store" keeps and what a GPU
            reads, and leaves the native path on a CPU. Where the kernels are normalised it costs
            a pixel's q up to about 1e-2 ("bfloat16") or 5e-4 ("float16"); where they are not,
            messages are sums over all pixels and their rounding can change labels.
        observe: is shown q_0, ..., q_T.

    Returns:
        (B, N, L) logits after T updates; their softmax is the marginal q_T.

    Raises:
        ValueError: shapes that do not fit, an option outside its range.
        TypeError: no floating-point tensor, penalties of another dtype or device.
    """
    check_problem(unary, kernels, pairwise, num_iterations)
    check_options(damping, tolerance, memory, storage)
    if damping == 0 and tolerance is None and observe is None and memory == "store":
        finished = all_updates(unary, kernels, pairwise, num_iterations, storage)
        if finished is not None:
            return finished
    step = mean_field_step if memory == "store" else recomputed(mean_field_step)
    logits = unary
    moving = unary.new_ones(unary.shape[0], 1, 1, dtype=torch.bool)
    show(observe, logits)
    for penalties in per_iteration(pairwise, num_iterations):
        previous = logits
        logits = step(previous, unary, kernels, penalties, damping, storage)
        if tolerance is not None:
            logits = torch.where(moving, logits, previous)
            # An image that was kept has changed by 0 and so is kept again.
            change = largest_change(logits.softmax(dim=-1), previous.softmax(dim=-1))
            moving = change.view(-1, 1, 1) > tolerance
        show(observe, logits)
        if tolerance is not None and not moving.any():
            break
    return logits


@final
@dataclass(frozen=True)
class MeanField(Inference):
    """`mean_field` with its options."""

    damping: float = 0.0
    tolerance: float | None = None
    memory: Memory = "store"
    storage: Storage = "float32"

    solve = staticmethod(mean_field)

    def __post_init__(self) -> None:
        check_options(self.damping, self.tolerance, self.memory, self.storage)


def without_unlikely_labels(
    inference: Inference,
    unary: Tensor,
    kernels: Sequence[Filter],
    pairwise: Pairwise,
    num_iterations: int,
    label_floor: float,
) -> Tensor:
    """Run an inference without the labels that cannot matter: logits (B, N, L).

    A label whose probability softmax(unary) is below `label_floor` = eps at every pixel of an
    image is left out of that image: it costs nothing, and keeps its probability in the result.

    How far such a label could have come. Let the compatibility be Potts, w >= 0 the sum of the
    kernel weights, K normalised "after" with entries of at least 0, P = softmax(unary) and
    M_t(l) = max_i q_t,i(l). The messages of label l are between 0 and M_t(l), so that

        q_{t+1},i(l) = P_i(l) exp(w (K q_t)_i(l)) / sum_k P_i(k) exp(w (K q_t)_i(k))
                    <= P_i(l) exp(w M_t(l)),

    the denominator being at least sum_k P_i(k) = 1. With M_0(l) <= eps and e w eps <= 1 it
    follows by induction that M_t(l) <= eps exp(e w eps) <= e eps in every iteration. Leaving out
    s labels moves each message, and the mass that the other labels share, by at most s e eps; a
    later update carries such a difference on, as it does any other, by up to a factor of w / 2.

    Limits. Of "symmetric" and "before", w is to be multiplied by the largest sum of a row of K;
    for "none" and other compatibilities, which may favour a label that the unary does not, there
    is no such bound. On photographs behind a network of 21 labels, eps = 1e-2 moved q by at most
    0.007, and 1e-3 by 0.003, with the symmetric normalisation.

    Args:
        inference: how the marginals of the other labels are found.
        unary: (B, N, L) logits.
        kernels: as for `mean_field`.
        pairwise: as for `mean_field`.
        num_iterations: T.
        label_floor: eps, at most 1 / L.
    """
    kept = rows_softmax(unary, implementation_of(kernels)).amax(1, keepdim=True) >= label_floor
    if kept.all():
        return inference(unary, kernels, pairwise, num_iterations)
    index = kept.any(0).squeeze(0).nonzero().squeeze(1)
    own = unary[..., index]
    # What another image of the batch keeps: finite, and 0 after an exponential.
    own = own.masked_fill(~kept[..., index], own.min().item() - 1e4)
    some = [[penalty[index][:, index] for penalty in penalties] for penalties in pairwise]
    logits = inference(own, kernels, some, num_iterations)
    total = logits.logsumexp(-1, keepdim=True) - own.logsumexp(-1, keepdim=True)
    shares = unary + total
    shares[..., index] = torch.where(kept[..., index], logits, shares[..., index])
    return shares


def all_updates(
    unary: Tensor,
    kernels: Sequence[Filter],
    pairwise: Pairwise,
    num_iterations: int,
    storage: Storage = "float32",
) -> Tensor | None:
    """All iterations in one call, (B, N, L), or None where there is no such call."""
    if num_iterations == 0 or len(pairwise) > 1:
        return None
    return fused_updates(None, unary, kernels, pairwise[0], num_iterations, storage=storage)


def fused_updates(
    start: Tensor | None,
    unary: Tensor,
    kernels: Sequence[Filter],
    penalties: Sequence[Tensor],
    iterations: int = 1,
    *,
    storage: Storage = "float32",
) -> Tensor | None:
    """Several updates as one operator, `ops.mean_field_updates`; None where it does not serve.

    It serves float32 on the CPU and, with Triton, on the GPU, spatial Gaussians of one grid and
    lattices, normalised; but not the lattice's own derivative, which its filter has.
    """
    rows = [unary] if start is None else [start, unary]
    if not kernels or any(x.dtype != torch.float32 for x in (*rows, *penalties)):
        return None
    implementation = implementation_of(kernels)
    if not serves_updates(implementation, unary):
        return None
    packed: list[Kernel] = []
    for kernel in kernels:
        own = kernel.packed() if isinstance(kernel, Normalized) else None
        if own is None or own.implementation != implementation:
            return None
        packed.append(own)
    grids = [own.shape for own in packed if own.lattice is None]
    if any(grid != grids[0] for grid in grids):
        return None
    tensors, accuracies, shape = flat(packed)
    learns = any(x.requires_grad for x in (*rows, *penalties, *tensors))
    result: Tensor = mean_field_updates(
        None if start is None else start.contiguous(),
        unary.contiguous(),
        list(penalties),
        tensors,
        accuracies,
        shape,
        implementation,
        iterations,
        learns and torch.is_grad_enabled(),
        storage,
    )[0]
    return result


def implementation_of(kernels: Sequence[Filter]) -> Implementation:
    """That of the kernels, for the arithmetic between them."""
    return kernels[0].implementation if kernels else "automatic"


def mean_field_step(
    logits: Tensor,
    unary: Tensor,
    kernels: Sequence[Filter],
    penalties: Sequence[Tensor],
    damping: float,
    storage: Storage = "float32",
) -> Tensor:
    """One iteration: logits_t -> logits_{t+1}, both (B, N, L)."""
    update = fused_updates(logits, unary, kernels, penalties, storage=storage)
    if update is None:
        q = stored(rows_softmax(logits, implementation_of(kernels)), storage)
        update = mean_field_update(q, unary, kernels, penalties, storage)
    return update if damping == 0 else torch.lerp(update, logits, damping)


def mean_field_update(
    q: Tensor,
    unary: Tensor,
    kernels: Sequence[Filter],
    penalties: Sequence[Tensor],
    storage: Storage = "float32",
) -> Tensor:
    """unary - sum_m K_m (q P_m'): minus the gradient of the relaxed energy, (B, N, L).

    Args:
        q: (B, N, L); affine in q, so not only marginals.
        unary: (B, N, L) logits.
        kernels: K_m.
        penalties: P_m = mu W_m, (L, L), one per kernel.
        storage: dtype of the messages q P_m', as in `mean_field`.
    """
    # K (q P'), not (K q) P': equal, because K acts on pixels and P on labels, but this order
    # stores one (B, N, L) tensor per iteration whatever the number of kernels. The product
    # saves q for the gradient of P, the softmax saves that same q, and the filter, linear,
    # saves nothing. Backward, the one filtered gradient h = K' g gives both h P (to q) and
    # h' q (to P). The other order would save every K_m q besides.
    logits = unary
    for kernel, penalty in zip(kernels, penalties, strict=True):
        sent = rows_product(q, penalty.t(), kernel.implementation)
        logits = logits - kernel(stored(sent, storage))
    return logits


def stored(x: Tensor, storage: Storage) -> Tensor:
    """x as it is read back from that dtype; its gradient is not rounded."""
    if storage == "float32":
        return x
    return x + (x.detach().to(STORAGE[storage]).to(x.dtype) - x.detach())


def per_iteration(pairwise: Pairwise, num_iterations: int) -> Iterator[Sequence[Tensor]]:
    """The penalties of iterations 0, ..., T - 1; the last entry serves what remains."""
    for t in range(num_iterations):
        yield pairwise[min(t, len(pairwise) - 1)]


def largest_change(q: Tensor, previous: Tensor) -> Tensor:
    """max_{i,l} |q - previous| of each image, (B,), without gradient."""
    return (q.detach() - previous.detach()).abs().amax(dim=(1, 2))


def recomputed(step: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """The step, keeping only its arguments for the backward pass, which runs it again."""

    def run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        # No iteration draws random numbers: there is no generator state to restore.
        result: Tensor = checkpoint(
            partial(step, **kwargs), *args, use_reentrant=False, preserve_rng_state=False
        )
        return result

    return run


def show(observe: Observer | None, logits: Tensor) -> None:
    """Pass softmax(logits), without gradient, to an observer if there is one."""
    if observe is not None:
        observe(logits.detach().softmax(dim=-1))


def check_problem(
    unary: Tensor, kernels: Sequence[Filter], pairwise: Pairwise, num_iterations: int
) -> None:
    """Raise unless the leading arguments of an inference fit each other."""
    check_rows(unary)
    check_pairwise(pairwise, len(kernels), unary)
    check_count("num_iterations", num_iterations, 0)


def check_options(damping: float, tolerance: float | None, memory: str, storage: str) -> None:
    """Raise unless the options of `mean_field` are in their ranges."""
    check_between("damping", damping, "[0, 1)")
    if tolerance is not None:
        check_positive("tolerance", tolerance, "largest change of q")
    check_choice("memory", memory, MEMORIES)
    check_choice("storage", storage, STORAGE)
