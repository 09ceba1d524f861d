"""The ways to compute a CRF that are timed on a GPU, as tasks whose layer and inputs exist."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import final
from unittest.mock import patch

import torch
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filtering import Filter, Normalized
from crfrnn.filtering.lattice import Lattice, build_lattice, named
from crfrnn.inference import MeanField
from crfrnn.native import library_path
from crfrnn.triton_kernels import available
from eval.benchmark.gpu.dense_axes import DenseAxesFilter
from eval.benchmark.gpu.sparse import SparseFilter
from eval.benchmark.paths import inference_layer, plain_paths, training_layer
from eval.benchmark.problem import Problem
from eval.benchmark.run import LARGEST_DIFFERENCE

Results = tuple[Tensor, ...]
ACCURACY = "standard"


class DevicePath(ABC):
    """One way to compute a CRF.

    Attributes:
        name: in tables.
        trains: whether it is timed forward and backward.
        learns_theta: whether it has the gradient of the widths.
        has_lattice: whether the bilateral kernel is approximated by the lattice.
        largest_difference: of q to plain PyTorch's, by rounding; None: it is told, not limited.
    """

    name: str
    trains = True
    learns_theta = True
    has_lattice = True
    largest_difference: float | None = LARGEST_DIFFERENCE

    def missing(self) -> str | None:
        """Why it cannot be timed here, or None."""
        return None

    def active(self) -> AbstractContextManager[None]:
        """Around every call of its tasks."""
        return nullcontext()

    def placed(self, problem: Problem) -> Problem:
        """The problem where this path computes it."""
        return problem

    @abstractmethod
    def logits(self, crf: CrfRnn, problem: Problem, unary: Tensor) -> Tensor:
        """What the layer makes of a unary (B, L, H, W), its kernels built anew."""

    def layer(self, problem: Problem) -> CrfRnn:
        """The parameters."""
        return training_layer(problem) if problem.training else inference_layer(problem)

    @final
    def prepare(self, problem: Problem) -> Callable[[], Results]:
        """The task: q, or the gradients of unary and parameters, from image and unary.

        Layer and inputs exist before it is called.
        """
        problem = self.placed(problem)
        crf = self.layer(problem)
        unary, _ = problem.unary, problem.image

        def infer() -> Results:
            with torch.inference_mode():
                return (self.logits(crf, problem, unary).softmax(dim=1),)

        if not problem.training:
            return infer
        grad = problem.logits_grad

        def train() -> Results:
            leaf = unary.detach().requires_grad_()
            wanted = [leaf, *(p for p in crf.parameters() if p.requires_grad)]
            return torch.autograd.grad(self.logits(crf, problem, leaf), wanted, grad)

        return train


class LayerPath(DevicePath):
    """`CrfRnn` as it is."""

    name = "crfrnn, Triton"

    def missing(self) -> str | None:
        """As `DevicePath.missing`."""
        return None if available() else "Triton is not installed"

    def logits(self, crf: CrfRnn, problem: Problem, unary: Tensor) -> Tensor:
        """As `DevicePath.logits`."""
        logits: Tensor = crf(unary, problem.image)
        return logits


@final
class ExactPath(LayerPath):
    """`CrfRnn` with the bilateral kernel summed over all pairs: inference alone."""

    name = "crfrnn, exact"
    trains = False
    has_lattice = False
    largest_difference = None

    def layer(self, problem: Problem) -> CrfRnn:
        """As `DevicePath.layer`."""
        return inference_layer(problem, bilateral_filter="exact")


@final
class HalfPath(LayerPath):
    """`CrfRnn` that stores q and the messages in bfloat16."""

    name = "crfrnn, Triton, q in bfloat16"
    largest_difference = None

    def layer(self, problem: Problem) -> CrfRnn:
        """As `DevicePath.layer`."""
        layer = training_layer if problem.training else inference_layer
        return layer(problem, inference=MeanField(storage="bfloat16"))


@final
class PlainPath(LayerPath):
    """`CrfRnn` as where there is neither Triton nor the native library: plain PyTorch."""

    name = "crfrnn, plain PyTorch"

    def missing(self) -> str | None:
        """As `DevicePath.missing`."""
        return None

    def active(self) -> AbstractContextManager[None]:
        """As `DevicePath.active`."""
        return without_triton()


@final
class NativePath(LayerPath):
    """`CrfRnn` on the CPU of the same machine."""

    name = "crfrnn, native CPU"

    def missing(self) -> str | None:
        """As `DevicePath.missing`."""
        return None if library_path() is not None else "not built: no C++ compiler"

    def placed(self, problem: Problem) -> Problem:
        """As `DevicePath.placed`."""
        return replace(problem, device="cpu")


@final
class SparsePath(DevicePath):
    """The same model by torch sparse products, and dense ones for the spatial kernel."""

    name = "torch sparse CSR"
    learns_theta = False

    def active(self) -> AbstractContextManager[None]:
        """As `DevicePath.active`: the updates around the products are plain as well."""
        return without_triton()

    def logits(self, crf: CrfRnn, problem: Problem, unary: Tensor) -> Tensor:
        """As `DevicePath.logits`."""
        pixels = problem.shape[0] * problem.shape[1]
        valid = unary.new_ones(problem.batch, pixels, 1)
        spatial = crf.potentials.kernel("spatial").widths("position", 2, valid)
        every: list[Filter] = [
            DenseAxesFilter(spatial, problem.shape),
            SparseFilter(bilateral_tables(crf, problem), named(ACCURACY)),
        ]
        normalization = crf.potentials.normalization
        return crf.infer(unary, [Normalized(kernel, normalization, valid) for kernel in every])


TRITON, HALF, PLAIN = LayerPath(), HalfPath(), PlainPath()
SPARSE, EXACT, NATIVE = SparsePath(), ExactPath(), NativePath()
PATHS: tuple[DevicePath, ...] = (TRITON, HALF, PLAIN, SPARSE, EXACT, NATIVE)


@torch.no_grad()
def bilateral_features(crf: CrfRnn, problem: Problem) -> Tensor:
    """Position and colour in units of theta: (B, N, 5)."""
    pixels = problem.shape[0] * problem.shape[1]
    valid = torch.ones(problem.batch, pixels, 1, device=problem.image.device)
    kernel = crf.potentials.kernel("bilateral")
    return kernel.features(problem.shape, problem.image.float(), valid, masked=False)


def bilateral_tables(crf: CrfRnn, problem: Problem) -> Lattice:
    """The lattice of the bilateral kernel, built by plain PyTorch where the problem lies."""
    return build_lattice(bilateral_features(crf, problem), named(ACCURACY))[0]


def count_vertices(problem: Problem) -> int:
    """M of the bilateral lattice, of the whole batch."""
    return bilateral_tables(inference_layer(problem), problem).stencils.shape[1] - 1


@contextmanager
def without_triton() -> Iterator[None]:
    """As where neither Triton nor the native library is: they have no switch, so are hidden."""
    with plain_paths(), patch("crfrnn.triton_kernels.FOUND", False):
        yield
