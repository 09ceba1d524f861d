"""When two run folders hold runs of one recipe."""

from __future__ import annotations

from collections.abc import Mapping
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


def what_matters(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what changes no arm: more seeds are more arms, not others."""
    return {k: v for k, v in config.items() if k not in CHANGES_NO_ARM}
