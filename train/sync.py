"""`python -m train sync RUN`: how to upload what a run logged offline.

By itself it uploads nothing: it lists what there is and prints the commands.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from train.offline_run import OfflineRun, offline_runs
from train.wandb_run import has_wandb_key

NO_KEY = (
    "No key of Weights & Biases is set on this machine: run `wandb login` first, or set "
    "WANDB_API_KEY."
)

IN_ORDER = (
    "A run that was resumed offline has a part for each process, named in order: wandb uploads "
    "them one after the other to the same run (before wandb 0.30, give the parts after the first "
    "in a command of their own with --append). Upload on this machine, and before you move or "
    "delete the folder: checkpoints are read where they are."
)


@dataclass(frozen=True)
class SyncOptions:
    """Say how to upload what was logged offline.

    Attributes:
        folder: of a comparison, an ablation or one arm.
        run: upload it now.
    """

    folder: tyro.conf.Positional[Path]
    run: bool = False


def sync_command(arguments: list[str]) -> None:
    """`python -m train sync` with these arguments."""
    options = tyro.cli(SyncOptions, prog="python -m train sync", args=arguments)
    sync(options.folder, run=options.run)


def sync(folder: Path, *, run: bool) -> None:
    """List the offline runs of a folder, and the command that uploads each.

    Args:
        folder: of a comparison, an ablation or one arm.
        run: execute the commands, too.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: a file of an offline run is damaged.
        ChildProcessError: an upload failed.
    """
    if not any(folder.rglob("metrics.jsonl")):
        raise FileNotFoundError(
            f"no run in {folder}: expected the folder of `train compare`, `train run` or `train "
            "ablate`, or that of one arm in it."
        )
    console = Console()
    found = offline_runs(folder)
    waiting = [part for part in found if not part.uploaded]
    if found:
        console.print(listing(found))
    if not waiting:
        console.print(
            "Everything that was logged offline has been uploaded."
            if found
            else "Nothing was logged offline: the run was online, or Weights & Biases was disabled."
        )
        return
    if not has_wandb_key():
        console.print(NO_KEY)
    console.print("To upload:\n")
    commands = [["wandb", "sync", *map(str, paths)] for paths in parts_by_run(waiting)]
    for command in commands:
        # Not through rich, which would break a line that is to be copied.
        print(shlex.join(command))
    console.print(f"\n{IN_ORDER}")
    if run:
        for command in commands:
            upload(command)


def parts_by_run(parts: list[OfflineRun]) -> list[list[Path]]:
    """The directories of each run, in order of time."""
    grouped = groupby(parts, key=lambda part: part.run_id)
    return [[part.path for part in same] for _, same in grouped]


def listing(parts: list[OfflineRun]) -> Table:
    """One row for each directory."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("group", "run", "id", "part", "rows", "last step", "size", ""):
        right = title in ("rows", "last step", "size")
        table.add_column(title, justify="right" if right else "left")
    for part in parts:
        state = "uploaded" if part.uploaded else "" if part.finished else "not finished"
        table.add_row(
            part.group,
            part.name,
            part.run_id,
            part.path.name,
            str(part.rows),
            "–" if part.last_step is None else str(part.last_step),
            f"{part.size / 1e6:.1f} MB",
            state,
        )
    return table


def upload(command: list[str]) -> None:
    """Execute one `wandb ...` with this interpreter's wandb."""
    done = subprocess.run([sys.executable, "-m", *command], check=False)
    if done.returncode != 0:
        raise ChildProcessError(f"`{shlex.join(command)}` failed with status {done.returncode}.")
