"""Predict masks of anybody's photographs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
import tyro
from torch import Tensor

from data import labels_from_dict, voc
from data.dataset import CorruptSample, LabelSet, Picture
from data.reading import IMAGE_ENDINGS, file_names, read_image
from eval.inference import InferenceConfig, batches_by_size, check_possible, infer_each
from eval.prediction_files import Kind, PredictionFiles
from models import CrfConfig
from runtime.checkpoint import Checkpoint, load_segmenter, read_checkpoint
from runtime.distributed import DeviceName, device_named
from runtime.progress import progress_bar
from runtime.run_folder import config_at

# Anyone's photographs, as the models see them.


def photographs(paths: Sequence[Path]) -> list[Path]:
    """List the files among the paths, and the images in the folders, not in folders below these.

    Raises:
        FileNotFoundError: a path does not exist, or there is no image.
        ValueError: two files share a stem, so what is written about one would replace the other.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            files = sorted(path / name for name in file_names(path))
            found += [file for file in files if file.suffix.lower() in IMAGE_ENDINGS]
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"there is no image or folder at {path}.")
    if not found:
        places = ", ".join(map(str, paths)) or "no path was given"
        raise FileNotFoundError(
            f"no image to read ({places}): pass images, or folders with files that end in "
            f"{', '.join(IMAGE_ENDINGS)}."
        )
    by_stem: dict[str, Path] = {}
    for path in found:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(
                f"{other} and {path} are both called {path.stem!r}, and results are named after "
                "their image: predict them into two folders, or rename one."
            )
    return found


# `python -m eval predict`: masks, overlays and probabilities of anyone's images.

POST_HOC = CrfConfig(kernel_weights="scalar", compatibility="potts")
"""The setting that --crf.OPTION changes: DeepLab v2's."""


@dataclass(frozen=True)
class PredictOptions:
    """Predict images whole, at their native size.

    Writes OUT/masks/NAME.png (mode P: the index is the class id), OUT/overlays/NAME.jpg and, where
    asked for, OUT/probabilities/NAME.npz. Files of these names are replaced. An image that cannot
    be read is named and left out, and the exit status is 1. Images are turned as their EXIF data
    say.

    Attributes:
        checkpoint: a file that `python -m train` wrote.
        images: files and folders of them.
        out: the folder to write to.
        write: what to write.
        voc_submission: write OUT/results/VOC2012/Segmentation/comp6_test_cls/NAME.png, too, which
            the evaluation server of VOC takes.
        inference: scales, mirrors and windows.
        crf: any --crf.OPTION puts this CRF behind the network, in place of the checkpoint's: what
            is not given is that of DeepLab v2, with scalar weights and Potts.
        no_crf: the network alone.
        label_bias: a number for each label, taken from the network's logits.
        batch_size: images that pad to one size and go through the network together.
        data_root: of data sets of the kind `folder`: where classes.json lies now.
        device: "auto" is the GPU where there is one.
    """

    checkpoint: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[tuple[Path, ...]]
    out: Path
    write: tuple[Literal["masks", "overlays", "probabilities"], ...] = ("masks", "overlays")
    voc_submission: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    inference: Annotated[InferenceConfig, tyro.conf.arg(name="")] = field(
        default_factory=InferenceConfig
    )
    crf: CrfConfig | None = None
    no_crf: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    label_bias: tuple[float, ...] = ()
    batch_size: int = 1
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    device: DeviceName = "auto"


class Photograph(NamedTuple):
    """A file that could be read.

    Attributes:
        path: of it.
        pixels: (H, W, 3) uint8 RGB.
    """

    path: Path
    pixels: Picture


def predict(options: PredictOptions) -> list[Path]:
    """Write what is asked for about every image.

    Returns:
        The images that could not be read.

    Raises:
        FileNotFoundError: no checkpoint, no image, or no classes.json.
        ValueError: two images share a stem, an image would be overwritten, the options do not fit
            the checkpoint.
    """
    if options.no_crf and options.crf is not None:
        raise ValueError("--no-crf and --crf.OPTION exclude each other: leave one out.")
    checkpoint = read_checkpoint(options.checkpoint)
    labels = labels_of(checkpoint, options.data_root)
    if options.voc_submission and labels.classes != voc.CLASSES:
        raise ValueError(
            f"--voc-submission: expected the {len(voc.CLASSES)} classes of VOC, and this "
            f"checkpoint has {', '.join(labels.classes)}."
        )
    paths = photographs(options.images)
    kinds: tuple[Kind, ...] = (
        (*options.write, "submission") if options.voc_submission else options.write
    )
    files = PredictionFiles(options.out, kinds, labels)
    check_not_replaced(paths, files)
    segmenter = load_segmenter(checkpoint)
    if options.no_crf or options.crf is not None:
        segmenter = segmenter.with_crf(options.crf)
    segmenter.add_label_bias(options.label_bias)
    segmenter = segmenter.to(device_named(options.device))
    check_possible(segmenter, options.inference)
    unreadable: list[Path] = []
    with progress_bar() as progress:
        task = progress.add_task("images", total=len(paths))

        def readable() -> Iterator[Photograph]:
            for path in paths:
                try:
                    yield Photograph(path, read_image(path))
                except (CorruptSample, OSError) as error:
                    progress.console.print(f"left out: {error}", markup=False)
                    progress.advance(task)
                    unreadable.append(path)

        for batch in batches_by_size(
            readable(), lambda p: segmenter.padded_size(p.pixels.shape[:2]), options.batch_size
        ):
            batch_of = [photograph for _, photograph in batch]
            images = [image_tensor(p.pixels, segmenter.device) for p in batch_of]
            outputs = infer_each(segmenter, images, options.inference)
            for photograph, output in zip(batch_of, outputs, strict=True):
                files.write(photograph.path.stem, photograph.pixels, output)
                progress.advance(task)
    return unreadable


def labels_of(checkpoint: Checkpoint, root: Path | None) -> LabelSet:
    """Find the classes of a checkpoint, without its data.

    Raises:
        ValueError: a root for a data set that is made, not read.
        FileNotFoundError: classes.json of a data set of the kind `folder` is not there.
    """
    if root is None and "labels" in checkpoint:
        return labels_from_dict(checkpoint["labels"])
    config = config_at(checkpoint["data"], root)
    try:
        return config.label_set()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the names of the classes are in no file here ({error}): pass --data.root DIR, the "
            "folder of classes.json."
        ) from error


def check_not_replaced(paths: list[Path], files: PredictionFiles) -> None:
    """Raise ValueError where a file to be written is one of the images."""
    images = {path.resolve() for path in paths}
    for path in paths:
        for target in files.paths(path.stem).values():
            if target.resolve() in images:
                raise ValueError(
                    f"{target} is one of the images and would be replaced: give another --out."
                )


def image_tensor(pixels: Picture, device: torch.device) -> Tensor:
    """Convert a picture to what the models take: (1, 3, H, W) float32, RGB in 0..255."""
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).to(device).float()


def predict_command(arguments: list[str]) -> None:
    """Parse and predict.

    Raises:
        SystemExit: with a message, when an image could not be read.
    """
    options = parsed(arguments)
    unreadable = predict(options)
    if unreadable:
        names = ", ".join(path.name for path in unreadable)
        raise SystemExit(f"error: {len(unreadable)} image(s) could not be read: {names}")


def parsed(arguments: list[str]) -> PredictOptions:
    """Parse a command line; without any --crf.OPTION the checkpoint keeps its CRF."""
    default = PredictOptions(tyro.MISSING, tyro.MISSING, tyro.MISSING, crf=POST_HOC)
    options = tyro.cli(
        PredictOptions,
        prog="python -m eval predict",
        default=default,
        args=arguments,
        config=(tyro.conf.AvoidSubcommands,),
    )
    given = any(argument.startswith("--crf.") for argument in arguments)
    return options if given else replace(options, crf=None)
