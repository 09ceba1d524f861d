"""Save and load checkpoints: one file with weights, state of training and config.

A file holds tensors, numbers, strings and containers of these, so it is read with
weights_only=True and runs no code.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypedDict
from zipfile import is_zipfile

import torch

from data import LabelSet, labels_to_dict
from models import Segmenter
from models.segmenter import WEIGHTS_FILE, read_pretrained
from runtime.files import whole_file

FORMAT = 2


class Contents(TypedDict):
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


class Checkpoint(Contents, total=False):
    """The contents of a file, or of a folder that `export_pretrained` wrote.

    Attributes:
        labels: `data.labels_to_dict`, of a folder.
    """

    labels: dict[str, Any]


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
    """Read the contents of a file, or of a folder that `export_pretrained` wrote.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: not a checkpoint of this project, or of another format.
    """
    if path.is_dir():
        config, state = read_pretrained(path)
        return _checked({**config, "model": state, "training": {}}, path)
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
    return _checked(checkpoint, path)


def weights_file(path: Path) -> Path:
    """Return the file that holds the weights: the checkpoint itself, or one in its folder."""
    return path / WEIGHTS_FILE if path.is_dir() else path


def _checked(checkpoint: Any, path: Path) -> Checkpoint:
    """Return the contents of a file or folder, which must be a checkpoint's."""
    fields = Contents.__annotations__.keys()
    if not isinstance(checkpoint, dict) or checkpoint.keys() - {"labels"} != fields:
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
    return Segmenter.from_state(checkpoint["segmenter"], checkpoint["model"])


def export_pretrained(checkpoint: Checkpoint, folder: Path, labels: LabelSet) -> Segmenter:
    """Write a checkpoint, without its state of training, as `Segmenter.save_pretrained` does.

    Args:
        checkpoint: its contents.
        folder: to write to; `read_checkpoint` takes it in place of the file.
        labels: what the ids mean.

    Returns:
        The model.
    """
    segmenter = load_segmenter(checkpoint)
    about = {k: v for k, v in checkpoint.items() if k not in ("segmenter", "model", "training")}
    segmenter.about = {**about, "labels": labels_to_dict(labels)}
    segmenter.save_pretrained(folder)
    return segmenter
