"""Change a recipe by the labels of an ablation, and share what the variants have in common."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import tyro

from data.dataset import choose
from runtime.files import whole_file
from runtime.run_folder import ArmName, digest_of, read_json, write_json
from train.ablate.ablation import Ablation, Changes
from train.recipe import NetworkArm, Recipe, digest_inputs, network_inputs, search_inputs

# Changes of a recipe by dotted field; tyro reads the values, as it does on a command line.

Config = TypeVar("Config")


def changed(config: Config, path: str, value: Any, above: str = "") -> Config:
    """Change one field of a config.

    Args:
        config: a frozen dataclass.
        path: dotted names of fields: "fit.loss.unary".
        value: what its words on a command line mean: an int stands for a float, a list for a
            tuple. Equal configs have equal digests.
        above: path of the config in the recipe, for the error.

    Raises:
        ValueError: there is no such field, the nearest is named; or it does not take the value.
    """
    name, _, rest = path.partition(".")
    if not is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"{above} is {config!r} and has no field {name!r}.")
    dotted = f"{above}.{name}".strip(".")
    choose("field", dotted, [f"{above}.{f.name}".strip(".") for f in fields(config)])
    if rest:
        new = changed(getattr(config, name), rest, value, dotted)
    else:
        new = parsed(value, get_type_hints(type(config))[name], dotted)
    return replace(config, **{name: new})


def parsed(value: Any, hint: Any, name: str) -> Any:
    """Read a value as its words on a command line are read.

    Raises:
        ValueError: the field `name` is of another type.
    """
    if value is None and type(None) in get_args(hint):
        return None
    words = map(str, value) if isinstance(value, list | tuple) else [str(value)]
    complaint = StringIO()
    try:
        with redirect_stderr(complaint), redirect_stdout(complaint):
            return tyro.cli(Annotated[hint, tyro.conf.Positional], args=list(words))
    except SystemExit as error:
        wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise ValueError(f"{name} must be {wanted}, got {value!r}.") from error


@dataclass(frozen=True)
class Variant:
    """A recipe with the changes of a label.

    Attributes:
        labels: that make this recipe: usually one.
        changes: of the first.
        recipe: the changed one.
        digest: of what matters in it; names its run folder.
    """

    labels: tuple[str, ...]
    changes: Changes
    recipe: Recipe
    digest: str

    def jobs(self, arms: Sequence[ArmName]) -> list[tuple[ArmName, int]]:
        """List the runs that an ablation asks of it: arm and seed."""
        recipe = self.recipe
        return [
            (arm, seed)
            for arm in arms
            for seed in (recipe.start_seeds if arm == "start" else recipe.seeds)
        ]


def expand(ablation: Ablation, recipe: Recipe) -> list[Variant]:
    """Make every variant, the base first; labels of one digest are one variant.

    Raises:
        ValueError: changes that the recipe cannot take; the message names the label.
    """
    variants: dict[str, Variant] = {}
    for label, changes in ablation.variants.items():
        varied = recipe
        try:
            for path, value in changes.items():
                if path == "seeds":
                    raise ValueError("seeds belong to all labels: give them with --seeds.")
                varied = changed(varied, path, value)
            varied.check_start()
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"ablation {ablation.name!r}, label {label!r}: {error}") from error
        digest = digest_of(digest_inputs(varied))
        variant = variants.setdefault(digest, Variant((), changes, varied, digest))
        variants[digest] = replace(variant, labels=(*variant.labels, label))
    return list(variants.values())


@dataclass(frozen=True)
class Job:
    """One arm and seed of a variant, in its folder."""

    variant: Variant
    arm: ArmName
    seed: int
    out: Path

    @property
    def folder(self) -> Path:
        """Say where the run writes."""
        return self.out / self.variant.digest / "arms" / f"{self.arm}-seed{self.seed}"

    @property
    def result(self) -> Path:
        """The file of a finished run."""
        return self.folder / "result.json"

    @property
    def failure(self) -> Path:
        """The file of a run whose last attempt failed."""
        return self.folder / "failed.json"


def jobs_of(ablation: Ablation, variants: Sequence[Variant], out: Path) -> list[Job]:
    """List every run, variant by variant."""
    return [
        Job(variant, arm, seed, out)
        for variant in variants
        for arm, seed in variant.jobs(ablation.arms)
    ]


# What variants have in common is trained once: a trained network is copied where `network_inputs`
# agree, a search with the very network it was made on where `search_inputs` do, and post-hoc with
# the search on unary, because it is what was found there.

FILES = ("checkpoint.pt", "result.json")  # the result last: what has one is finished


def take_over(
    variant: Variant, arms: Sequence[ArmName], others: Sequence[Variant], out: Path
) -> list[str]:
    """Copy what a sibling has finished and this variant would make again.

    Args:
        variant: that is to be run.
        arms: of it; some build on unary.
        others: of the same folder; the variant itself may be among them.
        out: holds a run folder for each, by digest.

    Returns:
        What was copied, from whom: "start-seed0 of 0123456789ab".
    """
    copied: list[str] = []
    needed: list[tuple[NetworkArm, int]] = [("start", s) for s in variant.recipe.start_seeds]
    if {"unary", "post-hoc", "crf-only"} & set(arms):
        needed += [("unary", seed) for seed in variant.recipe.seeds]
    target = out / variant.digest / "arms"
    for arm, seed in needed:
        name, inputs = f"{arm}-seed{seed}", network_inputs(variant.recipe, arm)
        for other in others:
            source = out / other.digest / "arms"
            if other.digest == variant.digest or network_inputs(other.recipe, arm) != inputs:
                continue
            if not all((source / name / file).is_file() for file in FILES):
                continue
            copied += copy_arm(other, source, target, name)
            taken_over = read_json(target / name / "taken_over.json") or {}
            if taken_over.get("from") != other.digest:
                continue
            if search_inputs(other.recipe, arm) != search_inputs(variant.recipe, arm):
                continue
            if not (source / name / "search.json").is_file():
                continue
            if not (target / name / "search.json").is_file():
                copy(source / name / "search.json", target / name / "search.json")
            post_hoc = f"post-hoc-seed{seed}"
            wanted = arm == "unary" and {"post-hoc", "crf-only"} & set(arms)
            if wanted and all((source / post_hoc / file).is_file() for file in FILES):
                copied += copy_arm(other, source, target, post_hoc)
    return copied


def copy_arm(other: Variant, source: Path, target: Path, name: str) -> list[str]:
    """Copy an arm from the folder of all arms of `other`, unless it is there; name it."""
    if (target / name / "result.json").is_file():
        return []
    counts = sorted(path.name for path in (source / name).glob("counts-*.npz"))
    for file in (*counts, *FILES):
        copy(source / name / file, target / name / file)
    write_json(target / name / "taken_over.json", {"from": other.digest})
    return [f"{name} of {other.digest}"]


def copy(source: Path, target: Path) -> None:
    """Copy a file whole or not at all."""
    with source.open("rb") as original, whole_file(target, shared=True) as file:
        shutil.copyfileobj(original, file)


def record_provenance(variant: Variant, out: Path) -> None:
    """Add to a variant's origin.json what made the arms that it has taken over.

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
