"""Record what made a result, and tell how two configurations differ."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

# Two configurations side by side, for errors that say what changed.


def differences(found: Any, expected: Any, name: str = "") -> list[str]:
    """List where two nested dictionaries differ, by dotted name."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = [*expected, *(k for k in found if k not in expected)]
        return [
            line
            for key in keys
            for line in differences(found.get(key), expected.get(key), f"{name}.{key}".strip("."))
        ]
    same = found == expected or (
        isinstance(expected, list | tuple)
        and isinstance(found, list | tuple)
        and list(found) == list(expected)
    )
    return [] if same else [f"{name} was {found!r}, now {expected!r}"]


# What made a result: command, commit, versions and machine.

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-image")

CODE = (":/crfrnn", ":/models", ":/data", ":/runtime", ":/eval", ":/train", ":/pyproject.toml")


def provenance() -> dict[str, Any]:
    """Collect the fields of results.json that say where it came from."""
    return {
        "command": shlex.join(["python", "-m", module_name(), *sys.argv[1:]]),
        "commit": git("rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": bool(git("status", "--porcelain", "--", *CODE)),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "machine": machine(),
    }


def merged(invocations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge what made a result over every invocation that did work on it.

    Args:
        invocations: entries of origin.json: `provenance()` with "started" and "seconds".

    Returns:
        command, commit, dirty, started, versions, machine, wall_seconds; "unknown", or empty, where
        no invocation is known.

    Raises:
        KeyError: an entry lacks one of them.
    """
    unknown = {"started": "unknown", "versions": {}, "machine": {}}
    first = invocations[0] if invocations else unknown
    return {
        **{key: first[key] for key in unknown},
        "command": " && ".join(dict.fromkeys(e["command"] for e in invocations)) or "unknown",
        "commit": ", ".join(dict.fromkeys(e["commit"] for e in invocations)) or "unknown",
        "dirty": any(entry["dirty"] for entry in invocations),
        "wall_seconds": sum(entry["seconds"] for entry in invocations),
    }


def module_name() -> str:
    """Return the name behind `python -m`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return (spec.name if spec is not None else "train").removesuffix(".__main__")


def git(*arguments: str) -> str | None:
    """Return the output of a git command in this repository; none outside of one."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, cores, threads in use and accelerator; no host name and no path."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": gpu,
    }


def processor() -> str:
    """Return the processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
