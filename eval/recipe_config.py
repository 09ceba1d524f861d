"""Which recipe a run folder is of, when two hold runs of one, and the digest that says so."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

CHANGES_NO_ARM = (
    "seeds",
    "workers",
    "device",
    "compile",
    "log_every",
    "save_every",
    "max_corrupt",
    "wandb",
)

GAINED: Mapping[str, Any] = {"search_again": False, "crf.storage": "float32"}
"""Fields that recipes have gained, by dotted name, at the value that changes nothing: left out
there, they keep the digests of earlier runs, and their folders can be gone on with."""

DIGEST_LENGTH = 12


def what_matters(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what changes no arm: more seeds are more arms, not others."""
    return without_gained({k: v for k, v in config.items() if k not in CHANGES_NO_ARM}, "")


def without_gained(config: Mapping[str, Any], above: str) -> dict[str, Any]:
    """A config without the fields of `GAINED` that are at their values there."""
    return {
        key: without_gained(value, f"{above}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if not (f"{above}{key}" in GAINED and value == GAINED[f"{above}{key}"])
    }


def digest_of(config: Mapping[str, Any]) -> str:
    """The same for the same values, in any order of the keys, on any machine."""
    written = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()[:DIGEST_LENGTH]


def recipe_of(command: str) -> str | None:
    """The recipe's name in `python -m train ...`; None where it names none."""
    words = shlex.split(command)
    if "train" not in words:
        return None
    verb, *options = words[words.index("train") + 1 :] or [""]
    if verb in ("compare", "run"):
        return options[0] if options else None
    if verb != "ablate":
        return None
    for before, word in pairwise(["", *options]):
        if before == "--recipe" or word.startswith("--recipe="):
            return word.removeprefix("--recipe=")
    return "collage"  # the default
