"""What run folders hold, read tolerantly: what is missing or damaged is said, the rest is kept.

Arms come from arms/*/result.json, not from results.json, so that a run that is still going on, or
was stopped, can be read too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from eval.metrics import SplitCounts
from runtime.provenance import merged
from runtime.run_folder import ARMS, ArmName

Values = Mapping[str, Any]

AGAIN = "Delete result.json there and repeat the command with --resume to score again."
KEYS = ("arm", "seed", "network_steps", "wall_seconds", "metrics", "crf", "search")


@dataclass(frozen=True)
class Lack:
    """Something that a run folder does not have, in words.

    Attributes:
        where: the folder, or folder/arm.
        what: what is missing there, the beginning of a sentence.
        remedy: what to do about it, a sentence; may be empty.
    """

    where: str
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class ArmRun:
    """One arm of one seed.

    Attributes:
        arm: its name.
        seed: its seed.
        result: the content of its result.json.
        counts: of the report split; None where they cannot be read.
        before: the same of its network without its CRF; None also for an arm without one.
        history: the lines of its metrics.jsonl.
        predictions: the folder of its masks of the report split.
    """

    arm: ArmName
    seed: int
    result: Values
    counts: SplitCounts | None
    before: SplitCounts | None
    history: tuple[Values, ...]
    predictions: Path

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.arm}-seed{self.seed}"

    @property
    def where(self) -> str:
        """Run folder and arm, for a `Lack`."""
        return f"{self.predictions.parents[1].name}/{self.name}"


@dataclass(frozen=True)
class RunRecord:
    """One run folder.

    Attributes:
        path: of the folder.
        recipe: name of the recipe.
        config: the content of config.json; empty where it cannot be read.
        invocations: that did work in the folder; see `runtime.provenance.merged`.
        classes: names, the position is the id.
        scored: ids whose scores are averaged.
        splits: how many images each split has, as far as that is known.
        runs: the finished arms.
        lacks: what the folder does not have.
    """

    path: Path
    recipe: str
    config: Values
    invocations: tuple[Values, ...]
    classes: tuple[str, ...]
    scored: tuple[int, ...]
    splits: Mapping[str, int]
    runs: tuple[ArmRun, ...]
    lacks: tuple[Lack, ...]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the config and of the arms, ascending."""
        wanted = self.config.get("seeds", ())
        return tuple(sorted({*wanted, *(run.seed for run in self.runs)}))


def read_run(path: Path) -> RunRecord:
    """Read one run folder.

    Args:
        path: of the folder that `python -m train` wrote.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no run folder: neither a config.json nor arms.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no run folder at {path}: expected one that `train` wrote.")
    if not (path / "config.json").is_file() and not (path / "arms").is_dir():
        raise ValueError(
            f"{path} is no run folder: expected a config.json or arms/ that `train` wrote. Give "
            "the folder of --out, such as runs/demo."
        )
    path = path.resolve()  # so that `.` has a name
    reader = _Reader(path)
    config = reader.values("config.json", "It is shown alone: which recipe it is of is unknown.")
    invocations = reader.invocations()
    results = reader.values(
        "results.json", "The run is not finished: repeat its command with --resume to go on."
    )
    runs = tuple(
        run
        for arm in ARMS
        for folder in sorted((path / "arms").glob(f"{arm}-seed*"), key=_seed_of)
        if (run := reader.arm(folder)) is not None
    )
    data = (results or {}).get("data") or _data_of(runs)
    return RunRecord(
        path,
        str((config or {}).get("recipe") or path.name),
        config or {},
        invocations,
        tuple(data["classes"]),
        tuple(data["scored"]),
        data["splits"],
        runs,
        tuple(reader.lacks),
    )


@dataclass
class _Reader:
    """Reads the files of one folder and collects what it lacks."""

    path: Path
    lacks: list[Lack] = field(default_factory=list)

    def values(self, name: str, remedy: str, folder: Path | None = None) -> dict[str, Any] | None:
        """The content of a JSON file; None, and a lack, where it cannot be read."""
        value = self._json(name, remedy, folder)
        if value is None or isinstance(value, dict):
            return value
        where = self.path.name if folder is None else f"{self.path.name}/{folder.name}"
        self.lacks.append(Lack(where, f"{name} holds no names and values", remedy))
        return None

    def invocations(self) -> tuple[Values, ...]:
        """Who did work in the folder; none where that cannot be read."""
        remedy = "Command, commit and machine are unknown."
        entries = self._json("origin.json", remedy, None) or ()
        try:
            merged(entries)
        except (KeyError, TypeError):
            self.lacks.append(Lack(self.path.name, "origin.json lacks what made the run", remedy))
            return ()
        return tuple(entries)

    def _json(self, name: str, remedy: str, folder: Path | None) -> Any:
        path = (folder or self.path) / name
        where = self.path.name if folder is None else f"{self.path.name}/{folder.name}"
        if not path.is_file():
            self.lacks.append(Lack(where, f"no {name}", remedy))
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            self.lacks.append(Lack(where, f"{name} is damaged: cut off, or no JSON", remedy))
            return None

    def arm(self, folder: Path) -> ArmRun | None:
        """One arm; None where it is not finished."""
        result = self.values(
            "result.json", "Repeat the command with --resume to finish this arm.", folder
        )
        if result is None:
            return None
        where = f"{self.path.name}/{folder.name}"
        absent = [key for key in KEYS if key not in result]
        if absent or result["arm"] not in get_args(ArmName) or "report" not in result["metrics"]:
            words = f"result.json lacks {', '.join(absent) or 'the scores of the report split'}"
            self.lacks.append(Lack(where, words, AGAIN))
            return None
        counts = self._counts(folder, "counts-report.npz", "no intervals and no calibration")
        before = None
        if result["crf"] is not None:
            before = self._counts(
                folder, "counts-report-before-crf.npz", "no harm rate, no gain by image"
            )
        if counts is not None and before is not None and counts.names != before.names:
            words = "counts-report-before-crf.npz is of other images than counts-report.npz"
            self.lacks.append(Lack(where, words, AGAIN))
            before = None
        return ArmRun(
            result["arm"],
            int(result["seed"]),
            result,
            counts,
            before,
            self._history(folder),
            self.path / "predictions" / folder.name,
        )

    def _counts(self, folder: Path, name: str, without: str) -> SplitCounts | None:
        where = f"{self.path.name}/{folder.name}"
        path = folder / name
        if not path.is_file():
            self.lacks.append(Lack(where, f"no {name}: {without}", AGAIN))
            return None
        try:
            return SplitCounts.load(path)
        except (ValueError, OSError):
            self.lacks.append(Lack(where, f"{name} is damaged: {without}", AGAIN))
            return None

    def _history(self, folder: Path) -> tuple[Values, ...]:
        """The lines of metrics.jsonl that are whole."""
        where = f"{self.path.name}/{folder.name}"
        path = folder / "metrics.jsonl"
        if not path.is_file():
            self.lacks.append(Lack(where, "no metrics.jsonl: no energies, no curves of training"))
            return ()
        lines, cut = [], []
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if isinstance(value, dict):
                lines.append(value)
            else:
                cut.append(str(number))
        if cut:
            words = f"metrics.jsonl is damaged in line {', '.join(cut)}, which is left out"
            self.lacks.append(Lack(where, words))
        return tuple(lines)


def _seed_of(folder: Path) -> tuple[int, str]:
    digits = folder.name.rpartition("-seed")[2]
    return (int(digits) if digits.isdigit() else -1, folder.name)


def _data_of(runs: Sequence[ArmRun]) -> Values:
    """Classes and images of a run without results.json, from what was counted."""
    for run in runs:
        counts = run.counts or run.before
        if counts is not None:
            splits = {"report": len(counts)}
            return {"classes": counts.classes, "scored": counts.scored, "splits": splits}
    for run in runs:
        report = run.result["metrics"]["report"]
        names = tuple(report.get("iou_per_class", ()))
        splits = {"report": len(report.get("images", ()))}
        return {"classes": names, "scored": range(len(names)), "splits": splits}
    return {"classes": (), "scored": (), "splits": {}}
