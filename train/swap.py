"""Tell the network's part of a gain from the CRF's: `python -m train swap RUN`.

Joint training changes two things at once. So each of the two final networks, of unary (U) and of
joint (J), is put before each of the two final CRFs, that of post-hoc behind U and that of joint:

                          CRF of post-hoc    CRF of joint
    network of unary      UU = post-hoc      UJ
    network of joint      JU                 JJ = joint

    network       (JU + JJ - UU - UJ) / 2     what the network gains, whichever CRF is behind it
    CRF           (UJ + JJ - UU - JU) / 2     what the CRF gains, whichever network is before it
    interaction   JJ + UU - UJ - JU           what they gain by being together: co-adaptation

Beside it stands what tells if there was a treatment at all: how far each network has moved from the
start, and how often the two say the same without a CRF. Equal networks make a comparison void.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console

from data import SegmentationDataset
from eval.inference import Coarse, coarse_unaries, evaluate, image_of, labels_of
from eval.metrics import Bootstrap, SplitCounts, score_named
from eval.runs import Estimate, Spread
from eval.tables import terminal
from models import Segmenter
from runtime.checkpoint import load_segmenter, read_checkpoint
from runtime.distributed import DeviceName, device_named
from runtime.run_folder import split_of, write_json

CELLS = ("UU", "UJ", "JU", "JJ")  # network, then CRF
EFFECTS: Mapping[str, Sequence[float]] = {
    "network": (-0.5, -0.5, 0.5, 0.5),
    "CRF": (-0.5, 0.5, -0.5, 0.5),
    "interaction": (1.0, -1.0, -1.0, 1.0),
    "joint - post-hoc": (-1.0, 0.0, 0.0, 1.0),
}
SCORES = {
    "mIoU": ("miou", None),
    "3 px": ("trimap_miou", "3"),
    "foreground": ("foreground_miou", None),
    "foreground, 3 px": ("trimap_foreground_miou", "3"),
}


@dataclass(frozen=True)
class SwapOptions:
    """Put the networks of unary and joint before the CRFs of post-hoc and joint, and score all.

    Attributes:
        run: folder that `python -m train compare` wrote; swap.json is written there.
        split: that is scored. Look at report once.
        seeds: of the run; all that have the three arms if none is named.
        data_root: where the data set lies now, if not where it was.
        device: "auto" is the GPU where there is one.
    """

    run: tyro.conf.Positional[Path]
    split: Literal["tune", "report"] = "tune"
    seeds: tuple[int, ...] = ()
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    device: DeviceName = "auto"


def swap(options: SwapOptions) -> dict[str, Any]:
    """Score the four cells of every seed; write swap.json, print and return what it holds.

    Raises:
        FileNotFoundError: a seed lacks one of the arms unary, post-hoc and joint.
    """
    arms = options.run / "arms"
    finished = {path.parent.name for path in arms.glob("*-seed*/result.json")}
    needed = ("unary", "post-hoc", "joint")
    complete = sorted(
        int(name.removeprefix("joint-seed"))
        for name in finished
        if name.startswith("joint-seed")
        and {name.replace("joint", arm) for arm in needed} <= finished
    )
    seeds = options.seeds or tuple(complete)
    lacking = [seed for seed in seeds if seed not in complete]
    if not seeds or lacking:
        raise FileNotFoundError(
            f"{options.run} must hold the finished arms {', '.join(needed)} of every seed, got "
            f"them for the seeds {complete}: make them with `python -m train run`."
        )
    counts = [of_seed(options, seed) for seed in seeds]
    cells = {cell: [one[cell] for one, _ in counts] for cell in CELLS}
    result = {
        "split": options.split,
        "seeds": list(seeds),
        "cells": {
            cell: {title: _shares(runs, *score) for title, score in SCORES.items()}
            for cell, runs in cells.items()
        },
        "effects": {
            effect: {
                title: _written(combined(cells, weights, *score)) for title, score in SCORES.items()
            }
            for effect, weights in EFFECTS.items()
        },
        "networks": [moved for _, moved in counts],
    }
    write_json(options.run / "swap.json", result)
    show(result)
    return result


def of_seed(options: SwapOptions, seed: int) -> tuple[dict[str, SplitCounts], dict[str, float]]:
    """Return the counts of the four cells, and how the networks differ."""
    device = device_named(options.device)
    read = {
        arm: read_checkpoint(options.run / "arms" / f"{arm}-seed{seed}" / "checkpoint.pt")
        for arm in ("unary", "post-hoc", "joint")
    }
    before, post_hoc, joint = (load_segmenter(one).to(device).eval() for one in read.values())
    split = split_of(read["joint"]["data"], options.split, options.data_root)
    networks = {"U": before, "J": joint}
    coarse = {name: coarse_unaries(network, split) for name, network in networks.items()}
    counts = {
        network + crf: evaluate(with_crf_of(networks[network], behind), split, coarse[network])
        for network in networks
        for crf, behind in (("U", post_hoc), ("J", joint))
    }
    same = agreement(before, joint, split, coarse)
    start = started_from(options.run / "arms", seed)
    moved = {name: distance(start, network) for name, network in networks.items()}
    return {cell: counts[cell] for cell in CELLS}, {
        "unary moved": moved["U"],
        "joint moved": moved["J"],
        "same labels": same,
    }


def with_crf_of(segmenter: Segmenter, other: Segmenter) -> Segmenter:
    """Copy a network with the CRF, and the bias in front of it, of another segmenter."""
    swapped = segmenter.with_crf(other.config.crf)
    assert swapped.crf is not None
    assert other.crf is not None
    swapped.crf.load_state_dict(other.crf.state_dict())
    swapped.set_label_bias(other.config.label_bias)
    return swapped


def started_from(arms: Path, seed: int) -> Segmenter:
    """Load the start of a seed: its own, or the one of all seeds."""
    own = arms / f"start-seed{seed}" / "checkpoint.pt"
    (path, *_) = [own] if own.is_file() else sorted(arms.glob("start-seed*/checkpoint.pt"))
    return load_segmenter(read_checkpoint(path))


def distance(start: Segmenter, trained: Segmenter) -> float:
    """Compute |w - w_start| / |w_start| over all weights of the network."""
    pairs = [
        (before.detach().cpu().double(), after.detach().cpu().double())
        for before, after in zip(
            start.network.parameters(), trained.network.parameters(), strict=True
        )
    ]
    moved = sum(float((after - before).square().sum()) for before, after in pairs)
    return float((moved / sum(float(before.square().sum()) for before, _ in pairs)) ** 0.5)


@torch.no_grad()
def agreement(
    one: Segmenter, other: Segmenter, split: SegmentationDataset, coarse: Mapping[str, Coarse]
) -> float:
    """Compute the share of pixels that both networks label alike, without CRF and bias."""
    same = pixels = 0
    one, other = (segmenter.with_crf(None) for segmenter in (one, other))
    for segmenter in (one, other):
        segmenter.set_label_bias(())
    for index in range(len(split)):
        sample = split[index]
        size = image_of(sample, one.device).shape[2:]
        labels = [
            labels_of(segmenter.enlarge(coarse[name][sample.name].to(one.device), size)[0])
            for name, segmenter in (("U", one), ("J", other))
        ]
        same += int((labels[0] == labels[1]).sum())
        pixels += labels[0].numel()
    return same / pixels


def combined(
    cells: Mapping[str, Sequence[SplitCounts]],
    weights: Sequence[float],
    name: str,
    within: str | None,
) -> Estimate:
    """Estimate a weighted sum of the cells' scores, paired by seed and image."""
    score = score_named(name, within)
    bootstrap = Bootstrap(len(cells["UU"][0]))
    drawn = np.stack(
        [
            sum(w * bootstrap.values([run], score) for w, run in zip(weights, runs, strict=True))
            for runs in zip(*(cells[cell] for cell in CELLS), strict=True)
        ]
    )
    return Estimate(Spread(tuple(drawn[:, 0].tolist())), lambda: drawn)


def _shares(runs: Sequence[SplitCounts], name: str, within: str | None) -> list[float]:
    score = score_named(name, within)
    return [float(score(run, run.all_once())[0]) for run in runs]


def _written(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "by_seed": list(estimate.spread.values),
        "over_images": estimate.interval,
        "over_seeds_and_images": estimate.wide_interval,
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the cells, the effects in points with their widest interval, and the networks."""
    rows = [
        [cell, *(f"{100 * float(np.mean(values)):.2f}" for values in scores.values())]
        for cell, scores in result["cells"].items()
    ]
    for effect, scores in result["effects"].items():
        cells = []
        for found in scores.values():
            low, high = found["over_seeds_and_images"] or found["over_images"]
            cells.append(f"{100 * found['value']:+.2f} {100 * low:+.2f} to {100 * high:+.2f}")
        rows.append([effect, *cells])
    console = Console()
    seeds = ", ".join(map(str, result["seeds"]))
    title = f"{result['split']} split, seeds {seeds}; network, then CRF"
    console.print(terminal(title, ["", *SCORES], rows))
    for seed, moved in zip(result["seeds"], result["networks"], strict=True):
        said = ", ".join(f"{name} {100 * value:.1f} %" for name, value in moved.items())
        console.print(f"seed {seed}: {said}", highlight=False)


def swap_command(arguments: list[str]) -> None:
    """Parse and run."""
    swap(tyro.cli(SwapOptions, prog="python -m train swap", args=arguments))
