"""What variants have in common is trained once.

A recipe's fields act in order: `start` is made from everything but the phases after it,
`unary` adds the training `fit`, a search adds the CRF's form and the grid. So

    start     may be taken over where all agrees but AFTER_START
    unary     where all agrees but AFTER_UNARY and, in `fit`, OF_CRF
    a search  of either network, where besides `crf` and `search` agree
    post-hoc  where the search on unary does: it is what was found there

Fields that a recipe gains count as acting on start until they are named here.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from eval.arms import ArmName
from train.ablate.expand import Variant
from train.run_folder import read_json, write_json

AFTER_UNARY = (
    *("crf_first", "crf_last", "crf_fit", "crf_augment"),
    *("crf", "search", "search_again"),
)
AFTER_START = ("fit", *AFTER_UNARY)
OF_CRF = ("crf_lr", "compatibility_lr", "context_lr")  # of `fit`: unary has no CRF to learn
FILES = ("checkpoint.pt", "result.json")  # the result last: what has one is finished
# Fields of the CRF that no search acts on: it has scalar weights, Potts and no context.
NOT_SEARCHED = (
    *("kernel_weights", "compatibility", "nonnegative", "theta_context", "num_iterations"),
    *("learn_unary_scale", "learn_theta", "untied"),
)

LATER: dict[ArmName, tuple[str, ...]] = {"start": AFTER_START, "unary": AFTER_UNARY}


def common(config: dict[str, Any], arm: ArmName) -> dict[str, Any]:
    """What the arm start or unary depends on."""
    kept = {key: value for key, value in config.items() if key not in LATER[arm]}
    if arm == "unary":
        kept["fit"] = {key: value for key, value in kept["fit"].items() if key not in OF_CRF}
    return kept


def searched(config: dict[str, Any], arm: ArmName) -> dict[str, Any]:
    """What the search on that arm's network depends on."""
    crf = {key: value for key, value in config["crf"].items() if key not in NOT_SEARCHED}
    return {**common(config, arm), "crf": crf, "search": config["search"]}


def take_over(
    variant: Variant, arms: Sequence[ArmName], others: Sequence[Variant], out: Path
) -> list[str]:
    """Copy what a sibling has finished and this variant would make again.

    A search is copied with the network it was made on where the same would be found, and post-hoc
    with it.

    Args:
        variant: that is to be run.
        arms: of it; some build on unary.
        others: of the same folder; the variant itself may be among them.
        out: holds a run folder for each, by digest.

    Returns:
        What was copied, from whom: "start-seed0 of 0123456789ab".
    """
    copied = []
    post_hoc = {"post-hoc", "crf-only"} & set(arms)
    for arm, seed in networks(variant, arms):
        for other in others:
            same = common(other.config, arm) == common(variant.config, arm)
            if other.digest == variant.digest or not same:
                continue
            source, target = (out / v.digest / "arms" for v in (other, variant))
            name = f"{arm}-seed{seed}"
            if not is_finished(source / name):
                continue
            copied += take(other, source, target, name)
            # A search belongs to the very network it was made on.
            taken = read_json(target / name / "taken_over.json") or {}
            same = searched(other.config, arm) == searched(variant.config, arm)
            if same and taken.get("from") == other.digest and found(source / name):
                if not found(target / name):
                    copy(source / name / "search.json", target / name / "search.json")
                if arm == "unary" and post_hoc and is_finished(source / f"post-hoc-seed{seed}"):
                    copied += take(other, source, target, f"post-hoc-seed{seed}")
    return copied


def found(folder: Path) -> bool:
    """Whether a search on this arm's network is finished."""
    return (folder / "search.json").is_file()


def is_finished(folder: Path) -> bool:
    """Whether all that is taken over of an arm is there."""
    return all((folder / file).is_file() for file in FILES)


def take(other: Variant, source: Path, target: Path, name: str) -> list[str]:
    """Copy an arm from the folder of all arms of `other`, unless it is there; say so."""
    if (target / name / "result.json").is_file():
        return []
    counts = sorted(path.name for path in (source / name).glob("counts-*.npz"))
    for file in (*counts, *FILES):
        copy(source / name / file, target / name / file)
    write_json(target / name / "taken_over.json", {"from": other.digest})
    return [f"{name} of {other.digest}"]


def sign_for_taken(variant: Variant, out: Path) -> None:
    """Name in a variant's origin.json what made the arms that it has taken over.

    Their seconds are those of the other folder.
    """
    path = out / variant.digest
    signed = read_json(path / "origin.json") or []
    known = {entry.get("id") for entry in signed}
    digests = {read_json(file)["from"] for file in sorted(path.glob("arms/*/taken_over.json"))}
    others = [
        {**entry, "seconds": 0.0, "taken_over": True}
        for digest in sorted(digests)
        for entry in read_json(out / digest / "origin.json") or []
        if entry.get("id") not in known
    ]
    if others:
        write_json(path / "origin.json", [*signed, *others])


def networks(variant: Variant, arms: Sequence[ArmName]) -> list[tuple[ArmName, int]]:
    """The trained networks that the arms are, or build on."""
    needed: list[tuple[ArmName, int]] = [("start", variant.recipe.seeds[0])]
    if {"unary", "post-hoc", "crf-only"} & set(arms):
        needed += [("unary", seed) for seed in variant.recipe.seeds]
    return needed


def copy(source: Path, target: Path) -> None:
    """Copy whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{uuid4().hex}.part")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
