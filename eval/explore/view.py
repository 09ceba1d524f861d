"""What the page shows of a scene under a setting: pictures and numbers, nothing of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps

from eval.explore.refinery import Refined, Refinery
from eval.explore.scene import Scene
from eval.metrics import confusion_matrix, mean_iou
from eval.prediction_files import Ids, Picture, overlay
from models import CrfConfig

NUM_MOVES = 5
OPACITY = 0.4  # of the masks: the edges of the image stay visible under them


@dataclass(frozen=True)
class Move:
    """Pixels that went from one label to another.

    Attributes:
        before: id of the network's label.
        after: id of the CRF's.
        share: of all pixels, 0..1.
    """

    before: int
    after: int
    share: float


@dataclass(frozen=True)
class View:
    """Of one scene under one setting. Pictures are (H, W, 3) uint8.

    Attributes:
        photograph: the image.
        before: the network's mask over it.
        after: the CRF's mask over it.
        probability: of the chosen label, behind the CRF, black 0 to yellow 1.
        difference: what changed, in the colour of its new label; the rest is grey.
        changed: share of the pixels with another label, 0..1.
        moves: the largest changes.
        shares: id -> share of the pixels, of the labels there are behind the CRF, largest first.
        truth: the true mask over the image, or none.
        miou: of this image before and after, over the scored classes there are; or none.
        refined: the run.
    """

    photograph: Picture
    before: Picture
    after: Picture
    probability: Picture
    difference: Picture
    changed: float
    moves: tuple[Move, ...]
    shares: dict[int, float]
    truth: Picture | None
    miou: tuple[float, float] | None
    refined: Refined


def view(
    refinery: Refinery, scene: Scene, setting: CrfConfig, label: str, *, preview: bool = False
) -> View:
    """Refine and show.

    Args:
        refinery: runs the CRF.
        scene: the image.
        setting: of the CRF.
        label: whose probability is shown; one of the scene's classes.
        preview: see `Refinery.refine`.

    Raises:
        ValueError: in words for the page.
    """
    refined = refinery.refine(scene, setting, preview=preview)
    palette = scene.labels.palette
    before = scene.before
    after = refined.q.argmax(0).numpy()
    probability = refined.q[scene.labels.classes.index(label)].numpy()
    return View(
        photograph=scene.pixels,
        before=overlay(scene.pixels, before, palette, OPACITY),
        after=overlay(scene.pixels, after, palette, OPACITY),
        probability=heat(probability),
        difference=difference(scene.pixels, before, after, palette),
        changed=float((before != after).mean()),
        moves=moves(before, after),
        shares=shares(after),
        truth=None if scene.truth is None else overlay(scene.pixels, scene.truth, palette, OPACITY),
        miou=None if scene.truth is None else (score(scene, before), score(scene, after)),
        refined=refined,
    )


def heat(probability: npt.NDArray[np.float32]) -> Picture:
    """(H, W) of 0..1 in matplotlib's inferno: black, red, yellow."""
    return np.asarray(colormaps["inferno"](probability, bytes=True)[..., :3])


def difference(pixels: Picture, before: Ids, after: Ids, palette: Picture) -> Picture:
    """The photograph in pale grey, and in full colour the new label of what changed."""
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    pale = np.repeat((150 + 0.4 * luma)[..., None], 3, axis=2)
    changed = (before != after)[..., None]
    return np.where(changed, palette[after], pale).round().astype(np.uint8)


def moves(before: Ids, after: Ids) -> tuple[Move, ...]:
    """The label changes of most pixels, largest first."""
    changed = before != after
    pairs, counts = np.unique(
        np.stack([before[changed], after[changed]]), axis=1, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:NUM_MOVES]
    return tuple(
        Move(int(pairs[0, i]), int(pairs[1, i]), float(counts[i] / before.size)) for i in order
    )


def shares(ids: Ids) -> dict[int, float]:
    """The share of the pixels of every label that occurs, largest first."""
    labels, counts = np.unique(ids, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {int(labels[i]): float(counts[i] / ids.size) for i in order}


def score(scene: Scene, ids: Ids) -> float:
    """MIoU of one image without its void, 0..1: of the scored classes in truth or prediction."""
    assert scene.truth is not None
    size = len(scene.labels.classes)
    return float(mean_iou(confusion_matrix(scene.truth, ids, size), scene.labels.scored))
