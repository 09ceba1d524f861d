"""Run the dense-CRF step of public projects as they call it, with pydensecrf and with our drop-in.

    python -m benchmarks.patterns --out results/patterns.json

Each pattern is a project's order of calls, shapes and settings, written anew, on made-up maps of a
photograph. It takes the two modules that such a script imports, so the only difference between the
two runs is the import. Equal means: the share of pixels with one and the same value in both masks.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import softmax

import crfrnn.densecrf
from benchmarks.measure import Options, Results, main, milliseconds, origin, photograph, rounds
from eval.tables import markdown

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[Any]

UNSURE = 255


@dataclass(frozen=True)
class Pattern:
    """One project's step.

    Attributes:
        project: whose calls these are.
        shape: of the image, (H, W), or of the volume.
        labels: L.
        notes: what is special.
        step: takes pydensecrf.densecrf, pydensecrf.utils and a scene; returns the mask.
    """

    project: str
    shape: tuple[int, ...]
    labels: int
    notes: str
    step: Callable[[Any, Any, Scene], Mask]


@dataclass(frozen=True)
class Scene:
    """Hold what a step takes: an image (H, W, 3), uint8, and logits (L, H, W) of a network."""

    image: npt.NDArray[np.uint8]
    logits: Floats

    @property
    def q(self) -> Floats:
        """Probabilities (L, H, W)."""
        return np.asarray(softmax(self.logits, axis=0), dtype=np.float32)


def scene(shape: tuple[int, ...], labels: int, seed: int = 0) -> Scene:
    """Make a photograph and smooth random logits, or for three axes a volume of two phases."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((labels, *shape)).astype(np.float32)
    scale = max(shape) / (25 if len(shape) == 2 else 8)
    smooth = np.stack([gaussian_filter(of_label, scale) for of_label in noise])
    logits = 3 * smooth / smooth.std()
    if len(shape) == 3:
        volume = 128 + 60 * np.sign(logits[0] - logits[1]) + 12 * rng.standard_normal(shape)
        return Scene(volume.clip(0, 255).astype(np.uint8), logits)
    image = photograph("astronaut.png", (shape[0], shape[1])).numpy().astype(np.uint8)
    return Scene(np.ascontiguousarray(image), logits)


def potentials(
    crf: Any, image: npt.NDArray[np.uint8], *numbers: float, normalization: Any = None
) -> None:
    """Add the two kernels: sxy and compat of the spatial, sxy, srgb and compat of the bilateral."""
    gamma, spatial, alpha, beta, bilateral = numbers
    more = {} if normalization is None else {"normalization": normalization}
    crf.addPairwiseGaussian(sxy=gamma, compat=spatial, **more)
    crf.addPairwiseBilateral(sxy=alpha, srgb=beta, rgbim=image, compat=bilateral, **more)


def of_probabilities(
    dcrf: Any, utils: Any, q: Floats, image: npt.NDArray[np.uint8], *numbers: float, steps: int = 10
) -> Floats:
    """Take the usual way: probabilities (L, H, W) in, marginals (L, H, W) out."""
    labels, height, width = q.shape
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(q)))
    potentials(crf, image, *numbers)
    return np.array(crf.inference(steps), dtype=np.float32).reshape(q.shape)


def highest(q: Any, *shape: int) -> Mask:
    """Return the likeliest label of each pixel, in another shape if one is given."""
    labels: Mask = np.asarray(q).argmax(0)
    return labels.reshape(shape) if shape else labels


def psa(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """Class activation maps and a background of (1 - max)^alpha, which do not sum to one."""
    cam = s.q[1:]
    maps = np.concatenate([(1 - cam.max(0, keepdims=True)) ** 4, cam])
    return highest(of_probabilities(dcrf, utils, maps, s.image, 3, 3, 80, 13, 10))


def irn(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """A label map alone, of which seven tenths are believed."""
    labels, height, width = s.logits.shape
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(
        utils.unary_from_labels(s.logits.argmax(0), labels, gt_prob=0.7, zero_unsure=False)
    )
    potentials(crf, s.image, 3, 3, 50, 5, 10)
    return highest(crf.inference(10), height, width)


def clip_es(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """Maps that do not sum to one, an image whose mean was taken off, and 255 where unsure."""
    image = (s.image[..., ::-1].astype(np.int16) - (104, 117, 123)).astype(np.uint8)  # it wraps
    image = np.ascontiguousarray(image)
    q = of_probabilities(dcrf, utils, 0.8 * s.q, image, 1, 3, 67, 3, 4)
    return np.where(q.max(0) < 0.95, UNSURE, q.argmax(0))


def toco(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """Softmax of logits, all 21 labels."""
    return highest(of_probabilities(dcrf, utils, s.q, s.image, 3, 3, 64, 5, 4))


def weclip(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """Softmax of the logits of those labels that the image has, a wide kernel."""
    return highest(of_probabilities(dcrf, utils, s.q, s.image, 3, 3, 121, 5, 4))


def stego(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """Log-softmax of 27 clusters from torch, as an energy."""
    energy = -torch.from_numpy(s.logits).log_softmax(0).numpy()
    labels, height, width = energy.shape
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(labels, -1)))
    potentials(crf, s.image, 1, 3, 67, 3, 4)
    return highest(crf.inference(10), height, width)


def primaps(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """Pixels without a proposal get 1 / L for every label."""
    q = s.q.copy()
    q[:, q.max(0) < 0.5] = 1 / len(q)
    return highest(of_probabilities(dcrf, utils, q, s.image, 1, 3, 67, 3, 4))


def cutler(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """A mask of zeros and ones through a softmax: 0.73 and 0.27."""
    mask = (s.logits[1] > s.logits[0]).astype(np.float32)
    q = np.asarray(softmax(np.stack([1 - mask, mask]), axis=0), dtype=np.float32)
    return highest(of_probabilities(dcrf, utils, q, s.image, 3, 7, 50, 5, 10))


def cellseg(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """A volume, by features of three and four dimensions."""
    labels, *shape = s.logits.shape
    crf = dcrf.DenseCRF(int(np.prod(shape)), labels)
    crf.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(s.q)))
    gaussian = utils.create_pairwise_gaussian(sdims=(3, 3, 3), shape=shape)
    crf.addPairwiseEnergy(gaussian, compat=3)
    bilateral = utils.create_pairwise_bilateral(
        sdims=(10, 10, 10), schan=(20,), img=s.image[..., None], chdim=3
    )
    crf.addPairwiseEnergy(bilateral, compat=5)
    return highest(crf.inference(5), *shape)


def manga(dcrf: Any, utils: Any, s: Scene) -> Mask:
    """Two labels on a page, kernels that are not normalised."""
    labels, height, width = s.logits.shape
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(s.q)))
    none = dcrf.NO_NORMALIZATION
    potentials(crf, s.image, 1, 3, 23, 7, 20, normalization=none)
    return highest(crf.inference(5), height, width)


VOC = (375, 500)
PATTERNS = (
    Pattern("PSA", VOC, 4, "maps that do not sum to one", psa),
    Pattern("IRN", VOC, 4, "labels alone", irn),
    Pattern("CLIP-ES", VOC, 4, "an image that wraps; 255 where unsure", clip_es),
    Pattern("ToCo, AFA", VOC, 21, "all labels", toco),
    Pattern("WeCLIP", VOC, 4, "a wide kernel", weclip),
    Pattern("STEGO", (320, 320), 27, "log-softmax from torch", stego),
    Pattern("PriMaPs, CUPS", (320, 640), 27, "1 / L where nothing is known", primaps),
    Pattern("CutLER", (480, 480), 2, "a mask through a softmax", cutler),
    Pattern("CellSeg3D", (48, 48, 48), 2, "a volume", cellseg),
    Pattern("manga-image-translator", (1200, 800), 2, "kernels not normalised", manga),
)


@dataclass(frozen=True)
class PatternsOptions(Options):
    """Run every pattern with both packages.

    Attributes:
        threads: of our drop-in; the C++ package has one.
        reduce: divide every side by it, for a quick try.
    """

    threads: int = 2
    reduce: int = 1


def peer() -> tuple[ModuleType, ModuleType]:
    """Import the C++ package and its utilities.

    Raises:
        ValueError: it is not installed.
    """
    try:
        names = ("pydensecrf.densecrf", "pydensecrf.utils")
        module, utils = (importlib.import_module(name) for name in names)
    except ImportError as error:
        raise ValueError(
            "these scripts are compared with pydensecrf, which is not installed: install it, or "
            "pydensecrf2, or put its folder on PYTHONPATH."
        ) from error
    return module, utils


def measure(options: PatternsOptions) -> Iterator[tuple[str, Any]]:
    """Time the patterns one by one, both packages in turn, after their masks are compared."""
    dcrf, utils = peer()
    torch.set_num_threads(options.threads)
    ours = crfrnn.densecrf
    rows = []
    for pattern in PATTERNS:
        shape = tuple(side // options.reduce for side in pattern.shape)
        given = scene(shape, pattern.labels)
        theirs, own = (pattern.step(d, u, given) for d, u in ((dcrf, utils), (ours, ours)))

        def run(
            d: Any, u: Any, pattern: Pattern = pattern, given: Scene = given
        ) -> Callable[[], Any]:
            return lambda: pattern.step(d, u, given)

        times = rounds({"pydensecrf": run(dcrf, utils), "ours": run(ours, ours)}, options.repeats)
        equal = float((theirs == own).mean())
        rows.append({"project": pattern.project, "shape": shape, "equal": equal, **times})
        yield "patterns", rows


def table(results: Results) -> str:
    """Write a row for each pattern."""
    known = {pattern.project: pattern for pattern in PATTERNS}
    rows = []
    for row in results["patterns"]:
        pattern = known[row["project"]]
        medians = [statistics.median(row[name]) for name in ("pydensecrf", "ours")]
        rows.append(
            [
                pattern.project,
                pattern.notes,
                " x ".join(map(str, row["shape"][::-1])),
                str(pattern.labels),
                f"{100 * row['equal']:.3f} %",
                milliseconds(row["pydensecrf"]),
                milliseconds(row["ours"]),
                f"{medians[0] / medians[1]:.1f}",
            ]
        )
    titles = [
        "calls of",
        "",
        "size",
        "labels",
        "equal pixels",
        "pydensecrf, ms",
        "ours, ms",
        "times",
    ]
    remark = f"{results['config']['threads']} threads for ours, one for pydensecrf"
    return f"{markdown(titles, rows, left=2)}\n\n{origin(results, remark)}"


if __name__ == "__main__":
    main(PatternsOptions, measure, table)
