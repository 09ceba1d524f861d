"""Kill a training again and again, resume it, and compare with one that was left alone:

python -m tests.full.train.kill_loop [--kills 20]        (or: make survive)

Every kill is SIGKILL at a random moment of the training: nothing in the program learns of it. What
must hold: after every kill the checkpoint can be read and holds at least the step that the one
before held, and in the end weights and numbers are those of the training that was left alone.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from runtime.checkpoint import read_checkpoint
from tests.train.world import lines_of

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class KillOptions:
    """How often, in how many steps, and at which random moments."""

    kills: int = 20
    steps: int = 40
    seed: int = 0


def start(out: Path, *options: str) -> subprocess.Popen[bytes]:
    """A child that trains in `out`, resuming what is there."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.full.train.child", str(out), *options],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )


def finish(out: Path, *options: str) -> None:
    """Let a child run to its end."""
    code = start(out, *options).wait()
    if code != 0:
        raise RuntimeError(f"the training in {out} ended with status {code}")


def checkpoint_of(out: Path) -> Path:
    return out / "arms" / "joint-seed0" / "checkpoint.pt"


def kill_once(out: Path, wait_for_step: int, delay: float, *options: str) -> bool:
    """Kill a child `delay` seconds after it has saved a step; False if it was done before."""
    child = start(out, *options)
    while child.poll() is None and steps_in(checkpoint_of(out)) < wait_for_step:
        time.sleep(0.01)
    try:
        child.wait(delay)
        return False
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return True


def steps_in(path: Path) -> int:
    """The step of a checkpoint; 0 without one. A broken one raises."""
    return read_checkpoint(path)["step"] if path.is_file() else 0


def same_run(one: Path, other: Path) -> list[str]:
    """What differs between two run folders: names of weights, or lines of numbers."""
    first, second = (read_checkpoint(checkpoint_of(out))["model"] for out in (one, other))
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    if numbers_of(one) != numbers_of(other):
        differing.append("metrics.jsonl")
    return differing


def numbers_of(out: Path) -> list[dict[str, float]]:
    """The lines of the arm, without what depends on the clock."""
    return lines_of(checkpoint_of(out).parent)


def main(arguments: list[str]) -> None:
    options = tyro.cli(KillOptions, args=arguments)
    moments = random.Random(options.seed)
    steps = ("--steps", str(options.steps))
    with tempfile.TemporaryDirectory() as folder:
        left_alone, killed = Path(folder, "left-alone"), Path(folder, "killed")
        finish(left_alone, *steps)
        kills = 0
        while kills < options.kills:
            before = steps_in(checkpoint_of(killed))
            # The next few steps are the moments of interest: between them the file is written.
            ended = not kill_once(killed, before + 1, moments.uniform(0, 0.5), *steps)
            after = steps_in(checkpoint_of(killed))
            print(f"kill {kills}: step {before} -> {after}{', done' if ended else ''}", flush=True)
            if after < before:
                raise SystemExit(f"step {before} was saved, step {after} is left")
            kills += not ended
            if ended:  # too few steps for so many kills: from the start again
                check(left_alone, killed)
                killed = Path(folder, f"killed-{kills}")
        finish(killed, *steps)
        check(left_alone, killed)
    print(f"{options.kills} kills: nothing lost, the same weights")


def check(left_alone: Path, killed: Path) -> None:
    """Exit with what differs."""
    differing = same_run(left_alone, killed)
    if differing:
        raise SystemExit(f"differs from the run that was left alone: {', '.join(differing[:5])}")


if __name__ == "__main__":
    main(sys.argv[1:])
