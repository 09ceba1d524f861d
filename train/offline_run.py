"""The file of an offline W&B run, read back: what an upload would send.

A `.wandb` file is a LevelDB log of protocol buffers: a header of 7 bytes, then blocks of
32 KiB filled with chunks of a checksum (4 bytes), a length (2, little-endian), a kind (1) and
data. A record is one chunk of kind 1, or a first (2), middle (3) and last (4) one; less than a
chunk's head at the end of a block is padding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

MAGIC = b":W&B"
HEADER = 7
BLOCK = 32768
HEAD = 7
WHOLE, LAST = 1, 4


@dataclass(frozen=True)
class OfflineRun:
    """One process's part of a W&B run that logged offline.

    Attributes:
        path: its directory, "offline-run-TIME-ID".
        run_id: of the run; a run that was resumed has a directory for each process.
        group, name: of the run.
        rows: of the history.
        last_step: of the training; none before the first row.
        finished: its process ended it; otherwise it died, or is still at work.
        size: bytes of the directory.
        uploaded: `wandb sync` left its mark here.
    """

    path: Path
    run_id: str
    group: str
    name: str
    rows: int
    last_step: int | None
    finished: bool
    size: int
    uploaded: bool


def offline_runs(folder: Path) -> list[OfflineRun]:
    """All that a folder and the folders in it hold, of each run in order of time."""
    found = [read_offline_run(path) for path in sorted(folder.rglob("offline-run-*"))]
    return sorted(found, key=lambda run: (run.path.parent, run.path.name))


def read_offline_run(directory: Path) -> OfflineRun:
    """What a directory holds.

    Raises:
        ValueError: it holds no file of a run.
    """
    files = sorted(directory.glob("*.wandb"))
    if not files:
        raise ValueError(f"{directory} holds no .wandb file: delete it, nothing can be uploaded.")
    run_id = group = name = ""
    rows, last_step, finished = 0, None, False
    for record in records(files[0]):
        if record.HasField("run"):
            run_id, group = record.run.run_id, record.run.run_group
            name = record.run.display_name
        elif record.HasField("history"):
            rows += 1
            last_step = history_row(record).get("step", last_step)
        elif record.HasField("exit"):
            finished = True
    return OfflineRun(
        path=directory,
        run_id=run_id,
        group=group,
        name=name,
        rows=rows,
        last_step=last_step,
        finished=finished,
        size=sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()),
        uploaded=files[0].with_name(files[0].name + ".synced").is_file(),
    )


def history_row(record: Record) -> dict[str, Any]:
    """The values of a row of the history, nested as they were logged."""
    row: dict[str, Any] = {}
    for item in record.history.item:
        *outer, last = item.nested_key or [item.key]
        inner = row
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return row


def records(path: Path) -> Iterator[Record]:
    """The records of a file, up to one that its writer did not finish.

    Raises:
        ValueError: not a file of W&B.
    """
    raw = path.read_bytes()
    if raw[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path} is no W&B file: expected it to begin with {MAGIC!r}.")
    position, parts = HEADER, b""
    while position + HEAD <= len(raw):
        left = BLOCK - position % BLOCK
        if left < HEAD:
            position += left
            continue
        length = int.from_bytes(raw[position + 4 : position + 6], "little")
        kind = raw[position + 6]
        begin, position = position + HEAD, position + HEAD + length
        if position > len(raw) or kind == 0:
            return
        parts += raw[begin:position]
        if kind in (WHOLE, LAST):
            record = Record()
            try:
                record.ParseFromString(parts)
            except Exception as error:  # DecodeError of protobuf, which is no dependency of ours
                raise ValueError(f"{path} is damaged: {error}.") from error
            yield record
            parts = b""
