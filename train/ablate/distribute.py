"""An ablation over many machines: shards, or a sweep that `wandb agent` works through."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.recipe_config import digest_of
from train.ablate.expand import Variant
from train.ablate.sharing import common
from train.wandb_run import PROJECT

AGENT_VARIABLES = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard written "i/n".

        Raises:
            ValueError: not of that form, or i is not in 1..n.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"--shard must be i/n with i in 1..n, such as 2/4, got {text!r}.")
        return cls(int(match[1]), int(match[2]))

    def of(self, variants: Sequence[Variant]) -> list[Variant]:
        """Its variants: every variant is in exactly one shard, sizes differ by at most one.

        Variants that share a start lie side by side before the cuts, so only those that a cut
        falls between train the same start on two machines.
        """
        starts = [digest_of(common(variant.config, "start")) for variant in variants]
        order = sorted(range(len(variants)), key=lambda k: (starts.index(starts[k]), k))
        cuts = [part * len(order) // self.count for part in (self.index - 1, self.index)]
        return [variants[k] for k in order[slice(*cuts)]]


def write_sweep(path: Path, name: str, variants: Sequence[Variant], arguments: list[str]) -> None:
    """A W&B sweep, one run of an agent for each variant, as JSON, which is YAML too.

    Args:
        path: of the file for `wandb sweep`.
        name: of the ablation.
        variants: to be run.
        arguments: of this command line, after the name, that every agent repeats.
    """
    sweep: dict[str, Any] = {
        "project": PROJECT,
        "name": name,
        "description": "python -m train ablate, a digest for each run",
        "program": "train/__main__.py",
        "method": "grid",
        "parameters": {"only": {"values": [variant.digest for variant in variants]}},
        "command": [
            *("${env}", "${interpreter}", "-m", "train", "ablate", name),
            *arguments,
            "${args}",
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sweep, indent=2) + "\n", encoding="utf-8")


def leave_sweep() -> None:
    """Let the arms be runs of their own where `wandb agent` started this process.

    The agent hands one run id to the process, and W&B would log all arms and seeds into that one
    run. The sweep only deals out the work; the runs are in the group of the ablation.
    """
    for name in AGENT_VARIABLES:
        os.environ.pop(name, None)
