"""The folder of a comparison: what is kept where, and whether it may be gone on with.

config.json                      the recipe, and origin.json: command, commit, machine
arms/<arm>-seed<k>/              checkpoint.pt, metrics.jsonl, result.json, search.json
predictions/<arm>-seed<k>/       masks of the report split, palette PNG
results.json, report.html        written when every arm is there
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from eval.checkpoint import load_segmenter, read_checkpoint
from models import Segmenter
from train.arms import ArmName
from train.loop import differences
from train.provenance import provenance


class RunFolder:
    """One run folder, claimed for one configuration.

    Args:
        path: of the folder; made if it does not exist.
        config: everything the run depends on, as JSON values.
        resume: accept a folder that holds a run of the same configuration.

    Raises:
        FileExistsError: the folder holds a run, and `resume` is off.
        ValueError: it holds a run of another configuration.
    """

    def __init__(self, path: Path, config: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        kept = read_json(path / "config.json")
        if kept is not None and not resume:
            raise FileExistsError(
                f"{path} holds a run already: --resume goes on with it, another --out starts a "
                "new one."
            )
        differing = [] if kept is None else differences(kept, config)
        if differing:
            raise ValueError(
                f"{path} holds a run of another configuration: {'; '.join(differing[:5])}. "
                "Give another --out, or delete the folder."
            )
        if kept is None:
            write_json(path / "config.json", config)
            # Written down now: by the end, an edit may have changed what git says.
            started = datetime.now(timezone.utc).isoformat(timespec="seconds")
            write_json(path / "origin.json", {**provenance(), "started": started})

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def origin(self) -> dict[str, Any]:
        """What began this run, whoever goes on with it: command, commit, versions, machine."""
        origin: dict[str, Any] = read_json(self.path / "origin.json") or {}
        return origin

    def arm(self, arm: ArmName, seed: int) -> Path:
        """The folder of one arm."""
        return self.path / "arms" / f"{arm}-seed{seed}"

    def checkpoint(self, arm: ArmName, seed: int) -> Path:
        """The checkpoint of one arm."""
        return self.arm(arm, seed) / "checkpoint.pt"

    def predictions(self, arm: ArmName, seed: int) -> Path:
        """The folder of an arm's masks of the report split."""
        return self.path / "predictions" / f"{arm}-seed{seed}"

    def load(self, arm: ArmName, seed: int) -> Segmenter:
        """The model that an arm left, in eval mode."""
        return load_segmenter(read_checkpoint(self.checkpoint(arm, seed)))


def read_json(path: Path) -> Any:
    """The value of a file; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all: what can be read is finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)
