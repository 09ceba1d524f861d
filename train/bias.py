"""Measure what every arm gains from one more number: `python -m train bias RUN --out DIR`.

A network trained by likelihood says the frequent labels where it is in doubt, and mean IoU, which
weighs all labels alike, wants them less often. One number b makes up for that, taken from the
logits in front of the CRF:

    unary_l - b d_l

with d_l = 1 for label 0 and 0 for the others ("background"), or d_l = log pi_l + constant, pi_l
the label's share of the training pixels ("prior": Menon et al., "Long-tail learning via logit
adjustment", ICLR 2021, section 4.2). Every finished arm gets its own b, that of the highest mean
IoU on the tune split, and is scored again. What one arm is ahead of another after that comes from
something else than how often they say a label.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from data import Sample, SegmentationDataset
from eval.grid import Direction, evenly_spaced
from eval.inference import coarse_unaries, evaluate, image_of, labels_of
from eval.metrics import SplitCounts, confusion_matrix, harm_rate, mean_iou, scores
from eval.search import direction_of
from models import Segmenter
from models.layers import shrink, shrink_image, stretch
from runtime.checkpoint import load_segmenter, read_checkpoint, save_checkpoint
from runtime.distributed import DeviceName, device_named
from runtime.run_folder import RunFolder, as_json, read_json, split_of, write_json


@dataclass(frozen=True)
class BiasOptions:
    """Give every finished arm of a run its best bias, and score it again.

    Attributes:
        run: folder that `python -m train compare` or `run` wrote.
        out: the folder to write, of the same layout; arms that are finished there are kept.
        direction: what is taken from the logits: b from label 0, or b times the logarithms of
            the labels' shares of the training pixels.
        values: of b, to choose from.
        num_images: of the tune split, evenly spaced, to choose on.
        arms: as ARM-seedN; all that are finished if none is named.
        data_root: where the data set lies now, if not where it was.
        device: "auto" is the GPU where there is one.
    """

    run: tyro.conf.Positional[Path]
    out: Path
    direction: Direction = "background"
    values: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    num_images: int = 60
    arms: tuple[str, ...] = ()
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    device: DeviceName = "auto"

    def __post_init__(self) -> None:
        if not self.values or self.num_images < 1:
            raise ValueError(
                f"--values and --num-images need one at least, got {self.values} and "
                f"{self.num_images}."
            )


def bias(options: BiasOptions) -> None:
    """Find every arm's best bias, save its checkpoint with it, and score it.

    Raises:
        FileNotFoundError: the run has no such finished arm.
        ValueError: its arms have a bias already, or the folder to write holds something else.
    """
    config = read_json(options.run / "config.json")
    found = sorted((options.run / "arms").glob("*-seed*/result.json"))
    finished = {path.parent.name: path.parent for path in found}
    missing = [name for name in options.arms if name not in finished]
    if config is None or not finished or missing:
        raise FileNotFoundError(
            f"{options.run} has no finished arm {', '.join(missing)}".rstrip()
            + f": expected one of {', '.join(finished) or 'a run folder'}."
        )
    if "label_bias" in config or config["search"].get("bias"):
        raise ValueError(f"the arms of {options.run} have a bias already: give the run they are of")
    chosen = {"direction": options.direction, "values": options.values}
    about = {**chosen, "num_images": options.num_images}
    folder = RunFolder(options.out, as_json({**config, "label_bias": about}), resume=True)
    # What made the run made this, too, and names the recipe.
    before, own = (read_json(path / "origin.json") or [] for path in (options.run, options.out))
    write_json(options.out / "origin.json", [*(e for e in before if e not in own), *own])
    for name in options.arms or finished:
        if not (options.out / "arms" / name / "result.json").is_file():
            biased(options, config, finished[name], folder)
            folder.sign()


def biased(options: BiasOptions, config: Any, source: Path, folder: RunFolder) -> None:
    """Give one arm its bias, from its folder `source` into `folder`."""
    began = time.perf_counter()
    checkpoint = read_checkpoint(source / "checkpoint.pt")
    segmenter = load_segmenter(checkpoint).to(device_named(options.device))
    splits = {
        split: split_of(checkpoint["data"], split, options.data_root)
        for split in ("train", "tune", "report")
    }
    direction = direction_of(options.direction, splits["train"])
    tune = splits["tune"]
    positions = evenly_spaced(options.num_images, len(tune))
    miou = tried(segmenter, tune, positions, [b * direction for b in options.values])
    best = options.values[int(np.argmax(miou))]
    segmenter.set_label_bias((best * direction).tolist())
    result = json.loads((source / "result.json").read_text())
    arm, seed = result["arm"], result["seed"]
    target = folder.arm(arm, seed)
    for split in config["score"]:
        counts = evaluate(segmenter, splits[split], coarse_unaries(segmenter, splits[split]))
        result["metrics"][split] = scores(counts)
        if result["crf"] is not None:
            # The network as it was: what CRF and bias did together.
            before = SplitCounts.load(source / f"counts-{split}-before-crf.npz")
            result["harm_rate"][split] = harm_rate(before, counts)
            before.save(folder.counts(arm, seed, f"{split}-before-crf"))
        counts.save(folder.counts(arm, seed, split))
    save_checkpoint(
        folder.checkpoint(arm, seed),
        segmenter,
        data=checkpoint["data"],
        arm=arm,
        seed=seed,
        step=checkpoint["step"],
        training={},
    )
    rows = [{"bias": b, "miou": value} for b, value in zip(options.values, miou, strict=True)]
    seconds = time.perf_counter() - began
    result |= {"label_bias": {"bias": best, "tried": rows}, "wall_seconds": seconds}
    write_json(target / "result.json", result)
    said = ", ".join(f"{row['bias']:g}: {100 * row['miou']:.2f}" for row in rows)
    edge = ", the end of --values: more may be better" if best == max(options.values) else ""
    print(f"{arm}-seed{seed}: b = {best:g}{edge}; tune mIoU {said}; {seconds:.0f} s")


@torch.no_grad()
def tried(
    segmenter: Segmenter,
    dataset: SegmentationDataset,
    positions: Sequence[int],
    biases: Sequence[Tensor],
) -> list[float]:
    """Compute the mean IoU of some images under every bias (L,) in front of the CRF."""
    segmenter.eval()
    labels = len(dataset.classes)
    confusions = np.zeros((len(biases), labels, labels), dtype=np.int64)
    for position in positions:
        sample = dataset[position]
        for confusion, logits in zip(
            confusions, biased_logits(segmenter, sample, biases), strict=True
        ):
            confusion += confusion_matrix(sample.mask.numpy(), labels_of(logits).numpy(), labels)
    return [float(np.nan_to_num(value)) for value in mean_iou(confusions, dataset.scored)]


def biased_logits(
    segmenter: Segmenter, sample: Sample, biases: Sequence[Tensor]
) -> Iterator[Tensor]:
    """Yield the logits (L, H, W) of one image under every bias; network and kernels run once."""
    image = image_of(sample, segmenter.device)
    unary = segmenter.unary(image)
    if segmenter.crf is not None:
        unary = shrink(unary, segmenter.resolution)
        small = shrink_image(image, segmenter.resolution)
        kernels = segmenter.crf.potentials.build_kernels(small)
    for taken in biases:
        logits = unary - taken.to(unary.device)[:, None, None]
        if segmenter.crf is not None:
            logits = stretch(segmenter.crf.infer(logits, kernels), image.shape[2:])
        yield logits[0]


def bias_command(arguments: list[str]) -> None:
    """Parse and run."""
    bias(tyro.cli(BiasOptions, prog="python -m train bias", args=arguments))
