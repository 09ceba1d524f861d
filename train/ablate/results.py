"""The numbers of an ablation, from the result files alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from eval.provenance import provenance
from eval.summary import Score, Spread, over_seeds, paired_difference, score
from train.ablate.ablation import Ablation
from train.ablate.execute import jobs_of
from train.ablate.expand import Variant
from train.run_folder import as_json, read_json

WIDTHS = ("1", "3")  # of the trimap, pixels

SCORES: dict[str, Score] = {
    "report": score("miou"),
    "tune": score("miou", split="tune"),
    **{f"trimap_{width}": score("trimap_miou", within=width) for width in WIDTHS},
}


def gather(
    ablation: Ablation, recipe_name: str, variants: Sequence[Variant], out: Path
) -> dict[str, Any]:
    """Everything that the table shows, as JSON values.

    `runs` has one entry for each label, arm and seed, with its scores; `missing` and `failed` name
    those without a result.
    """
    rows, missing, failed = [], [], []
    for variant in variants:
        for job in jobs_of(ablation, [variant], out):
            result = read_json(job.result)
            run = {"digest": variant.digest, "arm": job.arm, "seed": job.seed}
            if result is None:
                failure = read_json(job.failure)
                label = {**run, "label": variant.labels[0]}
                if failure is None:
                    missing.append(label)
                else:
                    failed.append({**label, **failure})
                continue
            scores = {name: pick(result) for name, pick in SCORES.items()}
            rows += [{**run, "label": label, **scores} for label in variant.labels]
    origins = [
        entry
        for variant in variants
        for entry in read_json(out / variant.digest / "origin.json") or []
    ]
    here = provenance()
    return {
        "ablation": ablation.name,
        "question": ablation.question,
        "recipe": recipe_name,
        "command": " && ".join(dict.fromkeys(entry["command"] for entry in origins))
        or here["command"],
        "commit": ", ".join(dict.fromkeys(entry["commit"] for entry in origins)) or here["commit"],
        "dirty": any(entry["dirty"] for entry in origins),
        "machine": origins[0]["machine"] if origins else here["machine"],
        "wall_seconds": sum(entry["seconds"] for entry in origins),
        "seeds": list(variants[0].recipe.seeds),
        "arms": list(ablation.arms),
        "against": ablation.against,
        "labels": {
            label: {"digest": variant.digest, "changes": as_json(dict(ablation.variants[label]))}
            for label in ablation.variants
            for variant in variants
            if label in variant.labels
        },
        "runs": rows,
        "missing": missing,
        "failed": failed,
    }


def spread(results: dict[str, Any], label: str, arm: str, name: str) -> Spread | None:
    """A score over the seeds, None without a run."""
    return over_seeds(as_arms(results, name), key(label, arm), _picked)


def difference(results: dict[str, Any], label: str, arm: str, name: str) -> Spread | None:
    """A score minus that of the base, paired by seed; None for the base itself.

    The base is the same arm under the first label, or another arm under the same label where the
    ablation compares arms.
    """
    if results["against"] is None:
        base = key(next(iter(results["labels"])), arm)
    else:
        base = key(label, results["against"])
    return paired_difference(as_arms(results, name), key(label, arm), base, _picked)


def interval(differences: Spread) -> tuple[float, float] | None:
    """The 95 % confidence interval of the mean of paired differences, None for a single seed.

    Student's t: mean +- t_{0.975, n - 1} s / sqrt(n), with s the sample standard deviation. It
    takes the differences as normal and independent; with two or three seeds it is wide, and
    rightly so.
    """
    if differences.deviation is None:
        return None
    n = len(differences.values)
    half = float(stats.t.ppf(0.975, n - 1)) * differences.deviation / math.sqrt(n)
    return differences.mean - half, differences.mean + half


def key(label: str, arm: str) -> str:
    """A label's arm, as the summary of a comparison knows an arm."""
    return f"{label}\n{arm}"


def as_arms(results: dict[str, Any], name: str) -> dict[str, Any]:
    """One score of the runs in the form of a comparison's results: `eval.summary` reads it."""
    return {
        "seeds": results["seeds"],
        "runs": [
            {"arm": key(run["label"], run["arm"]), "seed": run["seed"], "value": run[name]}
            for run in results["runs"]
        ],
    }


def _picked(run: Any) -> float | None:
    value: float | None = run["value"]
    return value
