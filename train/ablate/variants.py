"""Changes of a recipe, the runs that they make, and what two runs may share."""

from __future__ import annotations

import shutil
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import uuid4

from runtime.run_folder import ArmName, as_json, digest_of, read_json, what_matters, write_json
from train.ablate.ablation import Ablation, Changes
from train.recipe import Recipe

# Changes of a recipe by dotted field, checked against the types of its dataclasses.

Config = TypeVar("Config")


def changed(config: Config, path: str, value: Any) -> Config:
    """The config with one field changed.

    Args:
        config: a frozen dataclass.
        path: dotted names of fields: "fit.loss.unary".
        value: of the field's type; an int stands for a float, a list for a tuple.

    Raises:
        ValueError: there is no such field, the nearest is named; or the config refuses the value.
        TypeError: a value of another type.
    """
    result: Config = _changed(config, path, value, "")
    return result


def _changed(config: Any, path: str, value: Any, above: str) -> Any:
    name, _, rest = path.partition(".")
    if not is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"{above or 'the recipe'} is {config!r} here and has no field {name!r}.")
    known = [field.name for field in fields(config)]
    dotted = f"{above}.{name}".strip(".")
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no field {dotted!r}.{hint}")
    if rest:
        return replace(config, **{name: _changed(getattr(config, name), rest, value, dotted)})
    hint = get_type_hints(type(config))[name]
    return replace(config, **{name: fitted(value, hint, dotted)})


def fitted(value: Any, hint: Any, name: str) -> Any:
    """The value as the field holds it: equal configs have equal digests.

    Args:
        value: to be held.
        hint: resolved type of the field.
        name: of the field, for the error.

    Raises:
        TypeError: the value is not of that type.
    """
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for choice in choices:
            if matches(value, choice):
                return fitted(value, choice, name)
    elif matches(value, hint):
        if hint is float:
            return float(value)
        if origin is tuple:
            inner = choices[0] if choices[1:] == (...,) else None
            hints = [inner] * len(value) if inner is not None else choices
            return tuple(fitted(v, h, name) for v, h in zip(value, hints, strict=True))
        return value
    wanted = getattr(hint, "__name__", None) if origin is None else str(hint)
    raise TypeError(
        f"{name} must be {str(wanted).replace('typing.', '')}, got {value!r} "
        f"({type(value).__name__})."
    )


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is of a type: classes, Literal, unions and tuples of these."""
    origin, choices = get_origin(hint), get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin is Literal:
        return any(value == c and type(value) is type(c) for c in choices)
    if origin in (Union, types.UnionType):
        return any(matches(value, choice) for choice in choices)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        if choices[1:] == (...,):
            return all(matches(v, choices[0]) for v in value)
        return len(value) == len(choices) and all(map(matches, value, choices))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


# An ablation of a recipe, expanded: every label with its recipe and its digest.


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

    @property
    def config(self) -> dict[str, Any]:
        """What matters of the recipe, as JSON values."""
        return matters(self.recipe)

    def jobs(self, arms: Sequence[ArmName]) -> list[tuple[ArmName, int]]:
        """The runs that an ablation asks of it: arm and seed."""
        first = self.recipe.seeds[0]
        return [
            (arm, seed)
            for arm in arms
            for seed in ((first,) if arm == "start" else self.recipe.seeds)
        ]


def expand(ablation: Ablation, recipe: Recipe) -> list[Variant]:
    """Every variant, the base first; labels of one digest are one variant.

    Raises:
        ValueError: changes that the recipe cannot take; the message names the label.
    """
    found: dict[str, Variant] = {}
    for label, changes in ablation.variants.items():
        varied = recipe
        try:
            for path, value in changes.items():
                if path == "seeds":
                    raise ValueError("seeds belong to all labels: give them with --seeds.")
                varied = changed(varied, path, value)
            varied.check_start()
        except (ValueError, TypeError, FileNotFoundError) as error:
            raise ValueError(f"ablation {ablation.name!r}, label {label!r}: {error}") from error
        digest = digest_of(matters(varied))
        earlier = found.get(digest)
        labels = (label,) if earlier is None else (*earlier.labels, label)
        kept = changes if earlier is None else earlier.changes
        found[digest] = Variant(labels, kept, varied, digest)
    return list(found.values())


def matters(recipe: Recipe) -> dict[str, Any]:
    """What a run folder's configuration must agree in, and the seed that start is made with."""
    return {
        **what_matters(as_json(asdict(recipe))),
        # asdict forgets which data set a config is of.
        "data_kind": type(recipe.data).__name__,
        "network_kind": type(recipe.model.network).__name__,
        "start_seed": recipe.seeds[0],
    }


# What variants have in common is trained once.
#
# A recipe's fields act in order: `start` is made from everything but the phases after it, `unary`
# adds the training `fit`, a search adds the CRF's form and the grid. So
#
#     start     may be taken over where all agrees but AFTER_START
#     unary     where all agrees but AFTER_UNARY and, in `fit`, OF_CRF
#     a search  of either network, where besides `crf` and `search` agree
#     post-hoc  where the search on unary does: it is what was found there
#
# Fields that a recipe gains count as acting on start until they are named here.

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
