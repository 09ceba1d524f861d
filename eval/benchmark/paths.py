"""The ways to compute a CRF: this library's, and the peers that are importable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, final
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filtering import Normalization
from crfrnn.native import library_path
from eval.benchmark.problem import Problem

SPATIAL_WEIGHT, BILATERAL_WEIGHT = 3.0, 10.0


class Path(ABC):
    """One way to compute a CRF.

    Attributes:
        name: in tables.
        threaded: whether it uses more than one thread.
        trains: whether it has a backward pass.
        same_model: whether its kernels are those of the others; else it is timed, not compared.
        normalization: of its kernels in inference.
    """

    name: str
    threaded = True
    trains = False
    same_model = True
    normalization: Normalization = "symmetric"

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot be timed here, or None."""

    @abstractmethod
    def infer(self, problem: Problem) -> Tensor:
        """Marginals of every image, (B, L, H, W), from image and unary, everything included."""

    def train(self, problem: Problem) -> Tensor:
        """What the unary receives from `logits_grad`, (B, L, H, W): forward and backward."""
        raise NotImplementedError(f"{self.name} has no backward pass.")


class Layer(Path):
    """`CrfRnn` on whatever path is active."""

    name = "crfrnn, native"
    trains = True

    def missing(self) -> str | None:
        """As `Path.missing`."""
        return None if library_path() is not None else "not built: no C++ compiler"

    def infer(self, problem: Problem) -> Tensor:
        """As `Path.infer`."""
        crf = inference_layer(problem)
        with torch.inference_mode():
            return crf.marginals(problem.unary, problem.image)

    def train(self, problem: Problem) -> Tensor:
        """As `Path.train`."""
        crf = training_layer(problem)
        unary = problem.unary.detach().requires_grad_()
        return backward(crf(unary, problem.image), unary, problem)


@final
class PlainLayer(Layer):
    """`CrfRnn` without the native library: plain PyTorch."""

    name = "crfrnn, plain PyTorch"

    def missing(self) -> str | None:
        """As `Path.missing`."""
        return None

    def infer(self, problem: Problem) -> Tensor:
        """As `Path.infer`."""
        with plain_paths():
            return super().infer(problem)

    def train(self, problem: Problem) -> Tensor:
        """As `Path.train`."""
        with plain_paths():
            return super().train(problem)


@contextmanager
def plain_paths() -> Iterator[None]:
    """As where the native library was not built: it has no switch, so it is hidden."""
    with patch("crfrnn.native.library", return_value=None):
        yield


@final
class PyDenseCrf(Path):
    """The C++ dense CRF of its Python wrapper: one thread, inference alone."""

    name = "pydensecrf"
    threaded = False

    def missing(self) -> str | None:
        """As `Path.missing`."""
        return _unless_importable("pydensecrf.densecrf")

    def infer(self, problem: Problem) -> Tensor:
        """As `Path.infer`."""
        dcrf: Any = import_module("pydensecrf.densecrf")
        (height, width), (alpha, beta) = problem.shape, problem.thetas
        results = []
        for unary, image in zip(problem.unary, problem.image, strict=True):
            crf = dcrf.DenseCRF2D(width, height, problem.labels)
            energy = -unary.flatten(1).numpy()
            crf.setUnaryEnergy(np.ascontiguousarray(energy))
            crf.addPairwiseGaussian(sxy=problem.theta_gamma, compat=SPATIAL_WEIGHT)
            crf.addPairwiseBilateral(
                sxy=alpha,
                srgb=beta,
                rgbim=np.ascontiguousarray(image.permute(1, 2, 0).numpy()),
                compat=BILATERAL_WEIGHT,
            )
            q = np.asarray(crf.inference(problem.iterations))
            results.append(torch.from_numpy(q).view(problem.labels, height, width))
        return torch.stack(results)


class PeerLayer(Path):
    """A peer that is a PyTorch layer from logits to logits."""

    trains = True

    @abstractmethod
    def logits(self, problem: Problem, unary: Tensor) -> Tensor:
        """(B, L, H, W): what the layer makes of a unary of that shape."""

    def infer(self, problem: Problem) -> Tensor:
        """As `Path.infer`."""
        with torch.inference_mode():
            return self.logits(problem, problem.unary).softmax(dim=1)

    def train(self, problem: Problem) -> Tensor:
        """As `Path.train`."""
        unary = problem.unary.detach().requires_grad_()
        return backward(self.logits(problem, unary), unary, problem)


@final
class CrfAsRnn(PeerLayer):
    """The public PyTorch CRF-as-RNN layer on its C++ lattice, one image at a time."""

    name = "crfasrnn_pytorch"
    normalization: Normalization = "after"

    def missing(self) -> str | None:
        """As `Path.missing`."""
        return _unless_importable("permuto_cpp") or _unless_importable("crfasrnn.crfrnn")

    def _layer(self, problem: Problem) -> Any:
        layer: Any = import_module("crfasrnn.crfrnn")
        params: Any = import_module("crfasrnn.params")
        alpha, beta = problem.thetas
        settings = params.DenseCRFParams(
            alpha, beta, problem.theta_gamma, SPATIAL_WEIGHT, BILATERAL_WEIGHT
        )
        return layer.CrfRnn(problem.labels, problem.iterations, settings)

    def logits(self, problem: Problem, unary: Tensor) -> Tensor:
        """As `PeerLayer.logits`."""
        crf = self._layer(problem)
        images = problem.image.float()
        return torch.cat([crf(i[None], u[None]) for i, u in zip(images, unary, strict=True)])


@final
class CrfSeg(PeerLayer):
    """The `crfseg` package: a truncated spatial kernel alone, so another model."""

    name = "crfseg, spatial only"
    same_model = False

    def missing(self) -> str | None:
        """As `Path.missing`."""
        return _unless_importable("crfseg")

    def logits(self, problem: Problem, unary: Tensor) -> Tensor:
        """As `PeerLayer.logits`."""
        package: Any = import_module("crfseg")
        crf = package.CRF(
            2,
            n_iter=problem.iterations,
            smoothness_weight=SPATIAL_WEIGHT,
            smoothness_theta=problem.theta_gamma,
        )
        logits: Tensor = crf(unary)
        return logits


NATIVE, PLAIN = Layer(), PlainLayer()
PEERS: tuple[Path, ...] = (PyDenseCrf(), CrfAsRnn(), CrfSeg())
PATHS: tuple[Path, ...] = (NATIVE, PLAIN, *PEERS)


def inference_layer(problem: Problem, **options: Any) -> CrfRnn:
    """`CrfRnn` as the sweeps over inference use it; options as its own."""
    crf = CrfRnn(
        problem.labels,
        kernel_weights="scalar",
        compatibility="potts",
        **layer_options(problem) | options,
    )
    return crf.to(problem.device).eval()


def training_layer(problem: Problem, **options: Any) -> CrfRnn:
    """`CrfRnn` as the sweeps over training use it; options as its own."""
    crf = CrfRnn(
        problem.labels,
        kernel_weights="matrix",
        compatibility="full",
        normalization="after",
        learn_theta=problem.learn_theta,
        **layer_options(problem) | options,
    )
    return crf.to(problem.device)


def layer_options(problem: Problem) -> dict[str, Any]:
    """The arguments of `CrfRnn` that both tasks share."""
    alpha, beta = problem.thetas
    return {
        "theta_alpha": alpha,
        "theta_beta": beta,
        "theta_gamma": problem.theta_gamma,
        "spatial_weight": SPATIAL_WEIGHT,
        "bilateral_weight": BILATERAL_WEIGHT,
        "num_iterations": problem.iterations,
        "num_iterations_eval": problem.iterations,
    }


def backward(logits: Tensor, unary: Tensor, problem: Problem) -> Tensor:
    """What the unary receives from the problem's gradient of the logits."""
    logits.backward(problem.logits_grad)  # type: ignore[no-untyped-call]
    assert unary.grad is not None
    return unary.grad


def _unless_importable(module: str) -> str | None:
    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    return None if found else f"module {module} is not installed"
