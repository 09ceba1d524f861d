"""The folder of a tuning: what is kept, and whether it may be gone on with.

config.json                      what the settings' scores depend on
logits/NAME.safetensors          the network's logits of an image
settings.jsonl                   every setting that was scored, in order, from when it was
gradient.jsonl                   every step of the method "gradient"
best.json, settings.csv, surface.png, surface.svg        written at the end
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.tuning.objective import Scores
from models import CrfConfig
from runtime.provenance import differences


class Journal:
    """JSON lines that are on the disk when `append` returns.

    Args:
        path: of the file.

    Attributes:
        lines: what the file holds.
        remarks: what had to be dropped of it.

    Raises:
        ValueError: a line ahead of the last is no JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self.remarks: list[str] = []
        text = path.read_bytes() if path.is_file() else b""
        whole = 0  # bytes up to the end of the last good line
        found = text.split(b"\n")
        for number, line in enumerate(found[:-1], 1):
            try:
                self.lines.append(json.loads(line))
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number} is no JSON ({error}): delete the folder, or give "
                    "another --out."
                ) from error
            whole += len(line) + 1
        if found[-1]:
            self.remarks.append(f"{path}: the last line was cut off and is dropped")
            os.truncate(path, whole)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line, and have the disk keep it."""
        self.lines.append(dict(line))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


class TuneFolder:
    """A folder that holds one tuning.

    Args:
        path: of the folder; made if it does not exist.
        config: everything the scores depend on, as JSON values.
        resume: accept a folder that holds a tuning of the same configuration.

    Raises:
        FileExistsError: the folder holds a tuning, and `resume` is off.
        ValueError: it holds one of another configuration, or a damaged journal.
    """

    def __init__(self, path: Path, config: dict[str, Any], *, resume: bool) -> None:
        self.path = path
        held = path / "config.json"
        if (path / "settings.jsonl").is_file() and held.is_file():
            if not resume:
                raise FileExistsError(
                    f"{path} holds a tuning already: --resume goes on with it, another --out "
                    "starts a new one."
                )
            differing = differences(json.loads(held.read_text(encoding="utf-8")), config)
            if differing:
                raise ValueError(
                    f"{path} holds a tuning of another configuration: {'; '.join(differing[:5])}. "
                    "Give another --out, or delete the folder."
                )
        self.settings = Journal(path / "settings.jsonl")
        self.steps = Journal(path / "gradient.jsonl")
        self.remarks = [*self.settings.remarks, *self.steps.remarks]
        write_json(held, config)

    @property
    def logits(self) -> Path:
        """The folder of the network's logits."""
        return self.path / "logits"

    def kept(self, floor: float) -> dict[CrfConfig | None, Scores]:
        """The settings that were scored with that label floor, in order; None: the network."""
        return {
            None if line["setting"] is None else CrfConfig(**line["setting"]): Scores(
                **line["scores"]
            )
            for line in self.settings.lines
            if line["label_floor"] == floor
        }

    def report_of(self, setting: CrfConfig) -> Any:
        """What best.json says of the report split, if it is of that setting: it is scored once."""
        path = self.path / "best.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return kept["report"] if kept and kept["setting"] == asdict(setting) else None

    def keep(
        self,
        stage: str,
        setting: CrfConfig | None,
        scores: Scores,
        *,
        floor: float,
        seconds: float,
        cpu_seconds: float,
    ) -> None:
        """Write down what a setting, or the network alone, has reached.

        Args:
            stage: of the method.
            setting: none for the network alone.
            scores: of all images.
            floor: labels below it were left out.
            seconds: from one setting to the next.
            cpu_seconds: of all processes.
        """
        self.settings.append(
            {
                "stage": stage,
                "setting": None if setting is None else asdict(setting),
                "label_floor": floor,
                "scores": asdict(scores),
                "seconds": round(seconds, 3),
                "cpu_seconds": round(cpu_seconds, 3),
            }
        )


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
