"""The folder of a run: its configuration, who made it, and the results of its arms."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args
from uuid import uuid4

import data
from data import CollageConfig, DataConfig, SegmentationDataset, Split
from models import CrfConfig, Segmenter
from models.crf import crf_options
from runtime import distributed
from runtime.checkpoint import load_segmenter, read_checkpoint
from runtime.distributed import DeviceName
from runtime.files import whole_file
from runtime.provenance import differences, merged, provenance

# The five arms of the comparison, in the order in which they are shown everywhere.

ArmName = Literal["start", "unary", "post-hoc", "crf-only", "joint"]
ARMS: tuple[ArmName, ...] = get_args(ArmName)

ABOUT_ARMS: dict[str, str] = {
    "start": "the starting checkpoint as it is",
    "unary": "the network alone, trained from start",
    "post-hoc": "unary plus a dense CRF, its settings searched on the tune split",
    "crf-only": "unary frozen, the CRF trained by gradient from the post-hoc values",
    "joint": "network and CRF trained together from start",
}


# Which recipe a run folder is of, when two hold runs of one, and the digest that says so.


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a recipe is carried out: no arm changes with any of this.

    Attributes:
        seeds: one run of every arm but start for each.
        max_corrupt: images that may turn out unreadable in the training of one process, each
            named and replaced by another; one more stops the run.
        workers: processes that load data; 0 loads in the main process.
        device: "auto" is the GPU where there is one.
        compile: run the network through torch.compile.
        log_every, save_every: steps between two lines of numbers, and two checkpoints.
        wandb: "auto" logs online where a key is set and offline elsewhere.
    """

    seeds: tuple[int, ...] = (0, 1)
    max_corrupt: int = 10
    workers: int = 0
    device: DeviceName = "auto"
    compile: bool = False
    log_every: int = 10
    save_every: int = 50
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be distinct and at least one, got {self.seeds}.")
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise ValueError(f"seeds must lie in 0 to 2^32 - 1, got {self.seeds}.")
        for name, least in (
            ("workers", 0),
            ("max_corrupt", 0),
            ("log_every", 1),
            ("save_every", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")


STAGES = ("start", "finish.fit", "fit", "crf_first", "crf_fit", "crf_last")
GAINED_LOSSES: Mapping[str, Any] = {
    "teacher": 0.0,
    "teacher_confidence": 0.8,
    "teacher_balanced": True,
    "dense_crf": 0.0,
    "dense_crf_theta": [50.0, 15.0],
}
GAINED: Mapping[str, Any] = {
    "model.network_scale": 1,
    "search_again": False,
    "start_per_seed": False,
    "search.label_floor": 0.0,
    "search.bias": [],
    "search.bias_direction": "prior",
    **{f"crf.{f.name}": f.default for f in crf_options() if f.metadata["gained"]},
    **{f"{stage}.loss.{name}": value for stage in STAGES for name, value in GAINED_LOSSES.items()},
}
"""Fields that recipes have gained, by dotted name, at the value that changes nothing: left out
there, they keep the digests of earlier runs, and their folders can be gone on with."""

DIGEST_LENGTH = 12


def what_matters(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what changes no arm: more seeds are more arms, not others."""
    unread = {"recipe", *(f.name for f in fields(Execution))}
    return without_gained({k: v for k, v in config.items() if k not in unread}, "")


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


# The data set that a checkpoint or a run was made with, wherever it lies now.


def split_of(config: Mapping[str, Any], split: Split, root: Path | None) -> SegmentationDataset:
    """One split of a stored data set.

    Args:
        config: the data set's config as a dictionary, with its kind.
        split: train, tune or report.
        root: where the data set lies now, if not where it was.

    Raises:
        ValueError: a root for a data set that is made, not read.
        FileNotFoundError: nothing lies there.
    """
    return data.build(config_at(config, root), split)


def config_at(config: Mapping[str, Any], root: Path | None) -> DataConfig:
    """The config of a stored data set, at the root where it lies now, if not where it was.

    Raises:
        ValueError: a root for a data set that is made, not read.
    """
    built = data.config_from_dict(dict(config))
    if root is None:
        return built
    if isinstance(built, CollageConfig):
        raise ValueError("--data.root: this checkpoint's data set is made, not read from disk.")
    return replace(built, root=root)


# The folder of a comparison: what is kept where, and whether it may be gone on with.
#
# config.json                      the recipe and its name, and origin.json: who did work here
# arms/<arm>-seed<k>/              checkpoint.pt, metrics.jsonl, result.json, search.json, and what
#                                  was counted on every image: counts-<split>.npz, for an arm with
#                                  a CRF also counts-<split>-before-crf.npz
# predictions/<arm>-seed<k>/       masks of the report split, palette PNG
# results.json, report.html        written when every arm is there


@dataclass(frozen=True)
class Found:
    """Hold what a search found: the best CRF and bias, every setting tried, and the time."""

    best: CrfConfig
    rows: list[dict[str, Any]]
    seconds: float
    bias: float = 0.0


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
        distributed.barrier()  # the others have read it
        if distributed.is_first():
            write_json(path / "config.json", config)
        # Asked now: by the end, an edit may have changed what git says.
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._invocation = {**provenance(), "started": started, "id": uuid4().hex}
        self._began = time.perf_counter()
        if kept is None and distributed.is_first():
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
        if not distributed.is_first():
            return
        seconds = time.perf_counter() - self._began
        signed: list[dict[str, Any]] = read_json(self.path / "origin.json") or []
        others = [entry for entry in signed if entry.get("id") != self._invocation["id"]]
        write_json(self.path / "origin.json", [*others, {**self._invocation, "seconds": seconds}])

    def provenance(self) -> dict[str, Any]:
        """Merge what made this folder over every invocation that did work in it."""
        return merged(read_json(self.path / "origin.json") or [])

    def arm(self, arm: ArmName, seed: int) -> Path:
        """The folder of one arm."""
        return self.path / "arms" / f"{arm}-seed{seed}"

    def checkpoint(self, arm: ArmName, seed: int) -> Path:
        """The checkpoint of one arm."""
        return self.arm(arm, seed) / "checkpoint.pt"

    def counts(self, arm: ArmName, seed: int, split: str) -> Path:
        """Return what was counted on the images of a split, see `eval.metrics.SplitCounts`."""
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
    """Write a value whole or not at all: what can be read is finished."""
    with whole_file(path, shared=True) as file:
        file.write(json.dumps(value).encode())
