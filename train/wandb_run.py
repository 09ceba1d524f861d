"""A run of Weights & Biases: which mode it takes, and what becomes of it without a server."""

from __future__ import annotations

import netrc
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import wandb

PROJECT = "crfrnn"

INIT_TIMEOUT = 30.0  # seconds that a run waits for the server before it goes offline

WandbMode = Literal["auto", "online", "offline", "disabled"]


def start_run(
    directory: Path,
    mode: WandbMode,
    *,
    run_id: str,
    group: str,
    name: str,
    tags: Sequence[str],
    config: dict[str, Any],
) -> wandb.Run:
    """Begin or go on with a run; offline, with a warning, where the server cannot be had.

    Every chart has the training's own `step` as its axis. W&B's internal step only grows and
    drops what is logged below it; so the steps that a resumed run takes again would be lost.

    Args:
        directory: gets W&B's own files, in wandb/.
        mode: "auto" logs online where a key is set and offline elsewhere.
        run_id: the same one goes on with the same run.
        group: the comparison or ablation.
        name: arm and seed.
        tags: to filter by.
        config: everything that the run depends on.
    """

    def init(resolved: Literal["online", "offline", "disabled"] | None) -> wandb.Run:
        return wandb.init(
            id=run_id,
            resume="allow",
            project=PROJECT,
            group=group,
            name=name,
            tags=list(tags),
            dir=str(directory),
            config=config,
            allow_val_change=True,  # a run may be resumed at another commit
            mode=resolved,
            settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT),
        )

    resolved = wandb_mode(mode)
    try:
        run = init(resolved)
    except wandb.Error as error:
        if resolved in ("offline", "disabled"):
            raise
        warnings.warn(
            f"no connection to Weights & Biases ({str(error).splitlines()[0]}): logging offline. "
            f"`wandb sync {directory}/wandb/offline-run-*` uploads it later.",
            RuntimeWarning,
            stacklevel=2,
        )
        run = init("offline")
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    return run


def wandb_mode(mode: WandbMode) -> Literal["online", "offline", "disabled"] | None:
    """What "auto" means here; None leaves it to W&B, which reads WANDB_MODE itself."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return None
    return "online" if has_wandb_key() else "offline"


def has_wandb_key() -> bool:
    """Whether W&B can log in: WANDB_API_KEY, or an entry in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = "api.wandb.ai"
    try:
        return netrc.netrc().authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
