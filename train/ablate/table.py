"""Read an ablation's finished runs, and write its table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from scipy import stats

from eval import tables
from eval.runs import Line, Run, Spread, lines
from runtime.provenance import merged
from runtime.run_folder import as_json, read_json
from train.ablate.ablation import Ablation
from train.ablate.variants import Variant, jobs_of

WIDTHS = ("1", "3")  # of the trimap, pixels

LEGEND = (
    "mIoU in per cent, mean ± sample standard deviation over n seeds; px: within that trimap band "
    "on the report split; difference of {split} mIoU in points, paired by seed, with its 95 % "
    "interval (Student t); with one seed neither deviation nor interval exists."
)

TITLES = ("label", "arm", "n", "report", "tune", *(f"{width} px" for width in WIDTHS))


def gather(
    ablation: Ablation, recipe_name: str, variants: Sequence[Variant], out: Path
) -> dict[str, Any]:
    """Collect everything that the table shows, as JSON values.

    `runs` has one entry for each label, arm and seed, with its scores as in a result.json;
    `missing` and `failed` name those without a result.
    """
    runs, missing, failed = [], [], []
    for variant in variants:
        for job in jobs_of(ablation, [variant], out):
            result = read_json(job.result)
            run = {"digest": variant.digest, "arm": job.arm, "seed": job.seed}
            if result is not None:
                metrics = {split: _shown(scores) for split, scores in result["metrics"].items()}
                runs += [{**run, "label": label, "metrics": metrics} for label in variant.labels]
                continue
            failure = read_json(job.failure)
            label = {**run, "label": variant.labels[0]}
            if failure is None:
                missing.append(label)
            else:
                failed.append({**label, **failure})
    invocations = [
        entry
        for variant in variants
        for entry in read_json(out / variant.digest / "origin.json") or []
    ]
    return {
        "ablation": ablation.name,
        "question": ablation.question,
        "recipe": recipe_name,
        **merged(invocations),
        "seeds": list(variants[0].recipe.seeds),
        "arms": list(ablation.arms),
        "against": ablation.against,
        "labels": {
            label: {"digest": variant.digest, "changes": as_json(dict(ablation.variants[label]))}
            for label in ablation.variants
            for variant in variants
            if label in variant.labels
        },
        "runs": runs,
        "missing": missing,
        "failed": failed,
    }


def _shown(scores: Mapping[str, Any]) -> dict[str, Any]:
    bands = {width: scores.get("trimap_miou", {}).get(width) for width in WIDTHS}
    return {"miou": scores["miou"], "trimap_miou": bands}


def interval(differences: Spread) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of the mean of paired differences, None for one seed.

    Student's t: mean +- t_{0.975, n - 1} s / sqrt(n), with s the sample standard deviation. It
    takes the differences as normal and independent; with two or three seeds it is wide, and
    rightly so.
    """
    if differences.deviation is None:
        return None
    n = len(differences.values)
    half = float(stats.t.ppf(0.975, n - 1)) * differences.deviation / math.sqrt(n)
    return differences.mean - half, differences.mean + half


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Write the cells of every label and arm, in order; dashes where there is no run."""
    known = {
        (line.label, line.arm): line
        for line in lines(
            Run(run["arm"], run["seed"], run, label=run["label"]) for run in results["runs"]
        )
    }
    table = []
    for label in results["labels"]:
        for arm in results["arms"]:
            base = _base(results, label, arm)
            line = known.get((label, arm), Line(label, arm, ()))
            other = known.get(base, Line(*base, runs=()))
            table.append(_cells(line, other, compared_on(results)))
    return table


def _base(results: Mapping[str, Any], label: str, arm: str) -> tuple[str, str]:
    """Return the label and arm that a row is compared with.

    That is the same arm under the first label, or another arm under the same label where the
    ablation compares arms.
    """
    if results["against"] is None:
        return next(iter(results["labels"])), arm
    return label, results["against"]


def _cells(line: Line, base: Line, split: str) -> list[str]:
    scores = [
        line.spread("miou"),
        line.spread("miou", split="tune"),
        *(line.spread("trimap_miou", width) for width in WIDTHS),
    ]
    compared = line.spread("miou", split=split)
    difference = line.minus(base, "miou", split=split)
    change = None if difference is None else difference.spread
    limits = None if change is None else interval(change)
    is_base = (line.label, line.arm) == (base.label, base.arm)
    return [
        line.label,
        line.arm,
        "0" if compared is None else str(len(compared.values)),
        *map(tables.percent, scores),
        "base"
        if is_base
        else tables.percent(None if difference is None else difference.spread, signed=True),
        tables.ABSENT
        if limits is None
        else " to ".join(f"{100 * value + 0.0:+.2f}" for value in limits),
    ]


def compared_on(results: Mapping[str, Any]) -> str:
    """Return the split of the differences: report, or tune where that alone was scored."""
    scored = {split for run in results["runs"] for split in run["metrics"]}
    return "tune" if scored == {"tune"} else "report"


def absent(results: Mapping[str, Any]) -> list[str]:
    """Write a line for every run without a result."""
    return [
        f"failed: {run['label']}, {run['arm']}-seed{run['seed']} ({run['digest']}): {run['error']}"
        for run in results["failed"]
    ] + [
        f"missing: {run['label']}, {run['arm']}-seed{run['seed']} ({run['digest']})"
        for run in results["missing"]
    ]


def terminal_table(results: Mapping[str, Any]) -> Table:
    """Write the table for the terminal."""
    return tables.terminal(
        f"{results['ablation']} on {results['recipe']}",
        (*TITLES, "difference", "95 %"),
        rows(results),
        caption=LEGEND.format(split=compared_on(results)),
        left=2,
    )


def markdown(results: Mapping[str, Any]) -> str:
    """Write the table with what it takes to repeat it."""
    return "\n".join(
        [
            f"# {results['ablation']} on {results['recipe']}",
            "",
            results["question"],
            "",
            "```",
            results["command"],
            "```",
            "",
            f"- seeds {tables.list_of(results['seeds'])}; "
            f"machine: {tables.machine_line(results)}; "
            f"wall time {tables.duration(results['wall_seconds'])}",
            f"- commit {tables.commit_line(results)}",
            *(f"- {line}" for line in absent(results)),
            "",
            tables.markdown((*TITLES, "difference", "95 %"), rows(results), left=2),
            "",
            LEGEND.format(split=compared_on(results)),
            "",
        ]
    )
