"""The folder of a comparison: what is kept where, and whether it may be gone on with.

config.json                      the recipe, and origin.json: who did work here
arms/<arm>-seed<k>/              checkpoint.pt, metrics.jsonl, result.json, search.json, and what
                                 was counted on every image: counts-<split>.npz, for an arm with
                                 a CRF also counts-<split>-before-crf.npz
predictions/<arm>-seed<k>/       masks of the report split, palette PNG
results.json, report.html        written when every arm is there
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

from eval import processes
from eval.arms import ArmName
from eval.checkpoint import load_segmenter, read_checkpoint
from eval.differences import differences
from eval.provenance import provenance
from eval.recipe_config import what_matters
from models import CrfConfig, Segmenter


@dataclass(frozen=True)
class Found:
    """What a search found, every setting it tried, and how long it took."""

    best: CrfConfig
    rows: list[dict[str, Any]]
    seconds: float


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
        # A run that ended before it had saved anything leaves nothing to protect.
        saved = any(path.glob("arms/**/*.pt")) or any(path.glob("arms/*/result.json"))
        kept = read_json(path / "config.json") if saved else None
        if kept is not None and not resume:
            raise FileExistsError(
                f"{path} holds a run already: --resume goes on with it, another --out starts a "
                "new one."
            )
        differing = [] if kept is None else differences(what_matters(kept), what_matters(config))
        if differing:
            raise ValueError(
                f"{path} holds a run of another configuration: {'; '.join(differing[:5])}. "
                "Give another --out, or delete the folder."
            )
        if kept is not None and kept.get("seeds", [])[:1] != config.get("seeds", [])[:1]:
            raise ValueError(
                f"{path} holds arms that begin at the start of seed {kept['seeds'][0]}: let it be "
                f"the first of --seeds, got {config['seeds']}, or give another --out."
            )
        processes.barrier()  # the others have read it
        if processes.is_first():
            write_json(path / "config.json", config)
        # Asked now: by the end, an edit may have changed what git says.
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._invocation = {**provenance(), "started": started, "id": uuid4().hex}
        self._began = time.perf_counter()
        if kept is None and processes.is_first():
            # Of a run that left nothing, what it was called is of no interest either.
            (path / "origin.json").unlink(missing_ok=True)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    def sign(self) -> None:
        """Write down that this invocation did work here, and how long it has taken so far.

        Others may do so at the same time, each with an arm of its own: their lines stay.
        """
        if not processes.is_first():
            return
        seconds = time.perf_counter() - self._began
        signed: list[dict[str, Any]] = read_json(self.path / "origin.json") or []
        others = [entry for entry in signed if entry.get("id") != self._invocation["id"]]
        write_json(self.path / "origin.json", [*others, {**self._invocation, "seconds": seconds}])

    def origin(self) -> dict[str, Any]:
        """What made this folder, over every invocation that did work in it."""
        signed: list[dict[str, Any]] = read_json(self.path / "origin.json") or []
        if not signed:
            raise ValueError(f"nothing was run in {self.path}.")
        return {
            **{k: signed[0][k] for k in ("started", "versions", "machine")},
            "command": " && ".join(as_whole([entry["command"] for entry in signed])),
            "commit": ", ".join(dict.fromkeys(entry["commit"] for entry in signed)),
            "dirty": any(entry["dirty"] for entry in signed),
            "wall_seconds": sum(entry["seconds"] for entry in signed),
        }

    def arm(self, arm: ArmName, seed: int) -> Path:
        """The folder of one arm."""
        return self.path / "arms" / f"{arm}-seed{seed}"

    def checkpoint(self, arm: ArmName, seed: int) -> Path:
        """The checkpoint of one arm."""
        return self.arm(arm, seed) / "checkpoint.pt"

    def counts(self, arm: ArmName, seed: int, split: str) -> Path:
        """What was counted on the images of a split, see `eval.metrics.SplitCounts`."""
        return self.arm(arm, seed) / f"counts-{split}.npz"

    def predictions(self, arm: ArmName, seed: int) -> Path:
        """The folder of an arm's masks of the report split."""
        return self.path / "predictions" / f"{arm}-seed{seed}"

    def load(self, arm: ArmName, seed: int) -> Segmenter:
        """The model that an arm left, in eval mode."""
        return load_segmenter(read_checkpoint(self.checkpoint(arm, seed)))


def as_json(value: Any) -> Any:
    """A nested config as JSON holds it: paths as strings, tuples as lists."""
    return json.loads(json.dumps(value, default=str))


def read_json(path: Path) -> Any:
    """The value of a file; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all: what can be read is finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of its own: another machine may write the same file now.
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def as_whole(commands: Sequence[str]) -> list[str]:
    """The commands without repetition; single arms of one recipe and options as one comparison.

    `python -m train run` makes the same arms as `compare`, in any order and on several machines.
    """
    whole = []
    for command in commands:
        words = shlex.split(command)
        if words[:4] == ["python", "-m", "train", "run"]:
            for option in ("--arm", "--seed"):
                if option in words:
                    at = words.index(option)
                    del words[at : at + 2]
            words[3] = "compare"
            words = [word for word in words if word != "--resume"]
        whole.append(shlex.join(words))
    return list(dict.fromkeys(whole if len(set(whole)) == 1 else commands))
