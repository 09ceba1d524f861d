"""Save and load checkpoints: one file with weights, state of training and config.

A file holds tensors, numbers, strings and containers of these, so it is read with
weights_only=True and runs no code.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypedDict
from zipfile import is_zipfile

import torch

from models import Segmenter, SegmenterConfig, without_pretrained
from runtime.files import whole_file

FORMAT = 2


class Checkpoint(TypedDict):
    """The contents of a file.

    Attributes:
        format: of this dictionary.
        segmenter: `SegmenterConfig` as a dictionary.
        model: the state of the `Segmenter` to evaluate: the moving average where there is one.
        data: the data set's config as a dictionary, with its kind.
        arm, seed, step: which run, and after how many steps.
        training: what `train.state.TrainingState` resumes from; empty where nothing was trained.
    """

    format: int
    segmenter: dict[str, Any]
    model: dict[str, torch.Tensor]
    data: dict[str, Any]
    arm: str
    seed: int
    step: int
    training: dict[str, Any]


def save_checkpoint(
    path: Path,
    segmenter: Segmenter,
    *,
    data: dict[str, Any],
    arm: str,
    seed: int,
    step: int,
    training: dict[str, Any],
) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        OSError: it cannot be written, for instance because the disk is full.
    """
    checkpoint = Checkpoint(
        format=FORMAT,
        segmenter=asdict(segmenter.config),
        model=segmenter.state_dict(),
        data=data,
        arm=arm,
        seed=seed,
        step=step,
        training=training,
    )
    try:
        with whole_file(path) as file:
            torch.save(checkpoint, file)
    except (OSError, RuntimeError) as error:  # torch's writer turns the one into the other
        kept = "the one saved before is whole" if path.is_file() else "none was saved before"
        raise OSError(
            f"the checkpoint {path} could not be written ({error}); {kept}. Make room, or give "
            "another --out."
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the contents of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a checkpoint of this project, or of another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: expected a file that `train` wrote.")
    damaged = (
        f"{path} is damaged or is no checkpoint: expected a file that `train` wrote (it is read "
        "with weights_only=True, so objects of other programs are refused)."
    )
    if not is_zipfile(path):
        raise ValueError(damaged)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(damaged) from error
    fields = Checkpoint.__annotations__.keys()
    if not isinstance(checkpoint, dict) or checkpoint.keys() != fields:
        raise ValueError(f"{path} does not hold what a checkpoint does: {', '.join(fields)}.")
    if checkpoint["format"] != FORMAT:
        raise ValueError(
            f"{path} is a checkpoint of format {checkpoint['format']}, this version reads "
            f"{FORMAT}: train it again, or use the commit that wrote it."
        )
    return checkpoint  # type: ignore[return-value]


def load_segmenter(checkpoint: Checkpoint) -> Segmenter:
    """Rebuild the model of a checkpoint in eval mode, loaded strictly.

    Raises:
        ValueError: its state does not fit its config, or the config is of another version.
    """
    try:
        config = SegmenterConfig.from_dict(checkpoint["segmenter"])
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"the checkpoint's config is of another version ({error}): train it again, or use the "
            "commit that wrote it."
        ) from error
    # The state brings every weight: nothing is to be fetched.
    segmenter = Segmenter(replace(config, network=without_pretrained(config.network)))
    try:
        segmenter.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        raise ValueError(
            f"the checkpoint's weights do not fit the model its config describes: {error}"
        ) from error
    return segmenter.eval()
