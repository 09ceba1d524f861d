"""An ablation of a recipe, expanded: every label with its recipe and its digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eval.arms import ArmName
from eval.recipe_config import digest_of, what_matters
from train.ablate.ablation import Ablation, Changes
from train.ablate.changes import changed
from train.recipe import Recipe
from train.run_folder import as_json


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
