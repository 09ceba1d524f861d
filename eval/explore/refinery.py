"""The CRF of a setting on a scene, with everything reused that a new setting leaves alone."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crfrnn.filtering import Filter
from eval.explore.scene import Scene
from models import CrfConfig
from models.crf import build_crf
from models.layers import shrink, shrink_image, stretch

FAINT = 0.01  # a probability that no pixel exceeds keeps a label out of a preview
KEPT = 4  # sets of kernels, each some ten megabytes on a photograph
EXACT_PIXELS = 5_000  # some 2.5e7 pairs an iteration: about a second a run

# What the kernels are built from; weights, iterations and solver leave them alone.
OF_KERNELS = (
    "theta_alpha",
    "theta_beta",
    "theta_gamma",
    "normalization",
    "spatial_filter",
    "bilateral_filter",
    "lattice_accuracy",
    "resolution",
)


@dataclass(frozen=True)
class Refined:
    """What a CRF makes of a scene.

    Attributes:
        q: (L, H, W) float32 marginals at the size of the image.
        grid: (h, w) that the CRF ran on.
        seconds: of this run, wall time.
        reused: the kernels were there already.
    """

    q: Tensor
    grid: tuple[int, int]
    seconds: float
    reused: bool


@dataclass(frozen=True)
class Energy:
    """One iteration; nats per pixel of the grid. See `crfrnn.diagnostics.Record`.

    Attributes:
        relaxed: E(q_t).
        free: <q_t, log q_t> + E(q_t), the KL divergence up to log Z.
        change: the largest |q_t - q_{t-1}|; 0 at the start.
    """

    relaxed: float
    free: float
    change: float


class Refinery:
    """Runs CRFs, one at a time; keeps the kernels of the last few settings.

    Args:
        exact_pixels: the largest grid that the exact filter is let loose on.
    """

    def __init__(self, exact_pixels: int = EXACT_PIXELS) -> None:
        self.exact_pixels = exact_pixels
        self._kernels: OrderedDict[tuple[object, ...], list[Filter]] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    @torch.no_grad()
    def refine(self, scene: Scene, setting: CrfConfig, *, preview: bool = False) -> Refined:
        """The marginals of a setting.

        Args:
            scene: the image.
            setting: of the CRF.
            preview: faster, for while a slider moves: at half resolution at least, and without
                the labels that the network gives to no pixel with a probability above `FAINT`.

        Raises:
            ValueError: a value out of its range, or the exact filter on a large grid; in words for
                the page.
        """
        with self._one_at_a_time:
            began = time.perf_counter()
            setting = preview_of(setting) if preview else setting
            labels = scene.seen(FAINT) if preview else slice(None)
            unary = shrink(scene.unary[:, labels], setting.resolution)
            crf = build_crf(setting, unary.shape[1]).eval()
            kernels, reused = self._kernels_of(scene, setting)
            logits = stretch(crf.infer(unary, kernels), scene.unary.shape[2:])
            q = torch.zeros_like(scene.unary[0])
            q[labels] = logits.softmax(1)[0]
            height, width = unary.shape[2:]
            return Refined(q, (height, width), time.perf_counter() - began, reused)

    @torch.no_grad()
    def energies(self, scene: Scene, setting: CrfConfig) -> list[Energy]:
        """The energy of q_0, ..., q_T on the grid of a preview, with all labels.

        It takes three times as long as the iterations alone, so not the finest grid.

        Raises:
            ValueError: as `refine`.
        """
        with self._one_at_a_time:
            setting = preview_of(setting)
            crf = build_crf(setting, len(scene.labels.classes)).eval()
            unary = shrink(scene.unary, setting.resolution)
            kernels, _ = self._kernels_of(scene, setting)
            pixels = unary[0, 0].numel()
            return [
                Energy(
                    record.relaxed_energy.item() / pixels,
                    record.free_energy.item() / pixels,
                    record.largest_change.item() if record.iteration else 0.0,
                )
                for record in crf.trace(unary, kernels)
            ]

    def _kernels_of(self, scene: Scene, setting: CrfConfig) -> tuple[list[Filter], bool]:
        key = (scene.name, *(getattr(setting, name) for name in OF_KERNELS))
        if key in self._kernels:
            self._kernels.move_to_end(key)
            return self._kernels[key], True
        image = shrink_image(scene.image, setting.resolution)
        self._check_exact(setting, image[0, 0].numel())
        kernels = build_crf(setting, len(scene.labels.classes)).potentials.build_kernels(image)
        self._kernels[key] = kernels
        if len(self._kernels) > KEPT:
            self._kernels.popitem(last=False)
        return kernels, False

    def _check_exact(self, setting: CrfConfig, pixels: int) -> None:
        if "exact" in (setting.spatial_filter, setting.bilateral_filter):
            if pixels <= self.exact_pixels:
                return
            raise ValueError(
                f"the exact filter sums over all pairs of pixels, and {pixels:,} are too many for "
                f"a page that answers at once: choose a coarser resolution (at most "
                f"{self.exact_pixels:,} pixels), or the lattice."
            )


def preview_of(setting: CrfConfig) -> CrfConfig:
    """The setting at half resolution at least."""
    return replace(setting, resolution=max(2, setting.resolution))
