"""One run of a run folder as it is stored: what made it, its scores, and what they come from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eval.metrics import SHOWN_WIDTHS, SplitCounts, harm_rate, scores
from eval.metrics.scores import SCORES
from eval.results.store import Record, digest_of_counts, read
from runtime.provenance import merged
from runtime.run_folder import digest_of, what_matters

HISTORY = 40
PATHS = (("data", "root"), ("data", "sbd"), ("model", "weights"), ("model", "backbone_weights"))

Split = Literal["tune", "report"]


def records_of(
    folder: Path, label: str, split: Split, arms: Sequence[str] = ()
) -> list[tuple[Record, dict[str, SplitCounts]]]:
    """Every run of a folder that is finished or has failed, with its counts by their digest.

    Args:
        folder: that `python -m train` wrote.
        label: of the row that the runs belong to.
        split: whose scores are stored.
        arms: to take; all if none is named.

    Raises:
        FileNotFoundError: a file of a run is missing.
        ValueError: it is damaged, or not what is to be published.
    """
    config = read(folder / "config.json")
    check_paths(config, folder)
    signed = read(folder / "origin.json")
    check_commands([entry["command"] for entry in signed], folder)
    made_by = merged(signed)
    about = {
        "label": label,
        "split": split,
        "recipe": config.get("recipe", folder.name),
        **{key: made_by[key] for key in ("command", "commit", "dirty")},
        "digest": digest_of(what_matters(config)),
        "config": config,
    }
    found = []
    for arm_folder in sorted((folder / "arms").glob("*-seed*")):
        arm, _, seed = arm_folder.name.rpartition("-seed")
        if arms and arm not in arms:
            continue
        taken = (arm_folder / "taken_over.json").is_file()
        made = [entry for entry in signed if entry.get("taken_over", False) == taken] or signed
        where = {key: made[0][key] for key in ("started", "machine", "versions")}
        run = {**about, **where, "arm": arm, "seed": int(seed)}
        if (arm_folder / "result.json").is_file():
            found.append(finished(run, arm_folder, split))
        elif (arm_folder / "failed.json").is_file():
            found.append(({**run, "failed": read(arm_folder / "failed.json")["error"]}, {}))
    return found


def check_paths(config: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError where a path of this machine would be published."""
    for part, name in PATHS:
        path = config.get(part, {}).get(name)
        if path is not None and Path(path).is_absolute():
            raise ValueError(
                f"{folder} was run with --{part}.{name.replace('_', '-')} {path}: run what is "
                "to be published with paths relative to the repository."
            )


def check_commands(commands: Sequence[str], folder: Path) -> None:
    """The same for the words of the commands."""
    for command in commands:
        for word in shlex.split(command):
            _, _, value = word.rpartition("=")
            if Path(value).is_absolute():
                raise ValueError(
                    f"{folder} was run with {word}: run what is to be published with paths "
                    "relative to the repository."
                )


def finished(
    run: Mapping[str, Any], folder: Path, split: Split
) -> tuple[Record, dict[str, SplitCounts]]:
    """The record of one arm's folder, and the counts that its scores come from."""
    result = read(folder / "result.json")
    if split not in result["metrics"]:
        raise ValueError(f"{folder} was not scored on the {split} split.")
    after = SplitCounts.load(folder / f"counts-{split}.npz")
    counts = {digest_of_counts(after): after}
    record = {
        **run,
        **({"bias": result["label_bias"]["bias"]} if "label_bias" in result else {}),
        "network_steps": result["network_steps"],
        "wall_seconds": result["wall_seconds"],
        "counts": next(iter(counts)),
        "scores": kept_scores(after),
        "crf": crf_in_short(result["crf"]),
        "crf_start": crf_in_short(result.get("crf_start")),
        "context": context_of(result["crf"], after),
        "history": history_of(folder / "metrics.jsonl"),
    }
    if result["crf"] is not None:
        before = SplitCounts.load(folder / f"counts-{split}-before-crf.npz")
        digest = digest_of_counts(before)
        counts[digest] = before
        record |= {
            "counts_before": digest,
            "scores_before": kept_scores(before),
            "harm_rate": harm_rate(before, after),
        }
    return record, counts


def kept_scores(counts: SplitCounts) -> dict[str, Any]:
    """Of `eval.metrics.scores`, what is stored."""
    found = scores(counts)
    trimap = {width: found["trimap_miou"][width] for width in SHOWN_WIDTHS}
    kept = {name: found[name] for name in (*SCORES, "iou_per_class")}
    return {**kept, "trimap_miou": trimap}


def crf_in_short(crf: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A CRF's numbers, of each matrix what its diagonal and the rest are on average."""
    if crf is None:
        return None
    matrices = {**crf["kernel_weights"], "compatibility": crf["compatibility"]}
    return {
        **{k: v for k, v in crf.items() if not isinstance(v, dict | list) or "theta" in k},
        **{name: in_short(np.array(values)) for name, values in matrices.items()},
    }


def context_of(
    crf: Mapping[str, Any] | None, counts: SplitCounts
) -> dict[str, dict[str, float]] | None:
    """What each scored label pays for each other one around it, mu W of the context kernel.

    {payer: {other: penalty}}. A penalty that all labels pay alike changes nothing, so the mean over
    the payers is taken off. None without a context kernel.
    """
    if crf is None or "context" not in crf["kernel_weights"]:
        return None
    scored = list(counts.scored)
    penalty = np.array(crf["compatibility"]) @ np.array(crf["kernel_weights"]["context"])
    penalty = penalty[np.ix_(scored, scored)]
    penalty -= penalty.mean(axis=0)
    names = [counts.classes[k] for k in scored]
    return {
        payer: {other: float(f"{p:.4g}") for other, p in zip(names, row, strict=True)}
        for payer, row in zip(names, penalty, strict=True)
    }


def in_short(matrix: Any) -> dict[str, float]:
    """Mean on and off the diagonal of an (L, L) matrix."""
    on = np.eye(len(matrix), dtype=bool)
    short = {"diagonal": float(matrix[on].mean())}
    return short | ({"others": float(matrix[~on].mean())} if len(matrix) > 1 else {})


def history_of(path: Path) -> list[dict[str, float]]:
    """The CRF's parameters over the training: at most `HISTORY` lines of metrics.jsonl."""
    if not path.is_file():
        return []  # of an arm that was found, not trained, or taken over
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if "step" in line and "crf/theta_alpha" in line]
    chosen = {round(k) for k in np.linspace(0, len(lines) - 1, min(HISTORY, len(lines)))}
    return [
        {
            key: float(f"{value:.6g}")
            for key, value in lines[k].items()
            if key == "step" or (key.startswith("crf/") and isinstance(value, float))
        }
        for k in sorted(chosen)
    ]
