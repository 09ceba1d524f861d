"""The best setting on the report split: once, beside the network alone, with intervals."""

from __future__ import annotations

from typing import Any

from eval.inference import coarse_unaries, evaluate
from eval.metrics import Bootstrap, score_named
from eval.metrics.scores import Score
from eval.tuning.options import TuneOptions
from models import CrfConfig
from runtime.checkpoint import Checkpoint, load_segmenter
from runtime.distributed import device_named
from runtime.run_folder import split_of


def score_held_out(
    checkpoint: Checkpoint, options: TuneOptions, setting: CrfConfig
) -> dict[str, Any]:
    """Scores of the report split, and the 95 % intervals of the paired differences.

    Args:
        checkpoint: whose network is refined.
        options: of the tuning.
        setting: the best one, with its output scale.

    Returns:
        By score, "network" and "crf" as numbers and "difference" as value, low and high, see
        `eval.metrics.Bootstrap`; and "images", how many.
    """
    dataset = split_of(checkpoint["data"], "report", options.data_root)
    segmenter = load_segmenter(checkpoint).with_crf(setting).to(device_named(options.device))
    coarse = coarse_unaries(segmenter, dataset)
    network = evaluate(segmenter, dataset, coarse, use_crf=False)
    refined = evaluate(segmenter, dataset, coarse)
    named: dict[str, Score] = {"miou": score_named("miou"), "nll": score_named("nll")}
    if options.trimap_width in refined.widths:
        named["trimap_miou"] = score_named("trimap_miou", str(options.trimap_width))
    bootstrap = Bootstrap(len(dataset), seed=options.seed)
    found: dict[str, Any] = {"images": len(dataset)}
    for name, score in named.items():
        difference = bootstrap.difference([refined], [network], score)
        values = [bootstrap.interval([counts], score) for counts in (network, refined)]
        found[name] = {
            **{
                kind: None if interval is None else interval.value
                for kind, interval in zip(("network", "crf"), values, strict=True)
            },
            "difference": None if difference is None else difference._asdict(),
        }
    return found
