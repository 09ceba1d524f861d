"""`python -m eval explore`: the page for a checkpoint or for stored probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from data import Split
from data.dataset import LabelSet
from eval.explore.page import Explorer, build_page, serve
from eval.explore.scene import Scenes, of_network, of_probabilities, of_split
from eval.predict import POST_HOC, labels_of
from eval.setting_lines import is_scalar, setting_of
from runtime.checkpoint import load_segmenter, read_checkpoint
from runtime.distributed import DeviceName, device_named
from runtime.run_folder import split_of

LEARNT = "The checkpoint's CRF has learnt matrices; here it has their mean weights, and Potts."


@dataclass(frozen=True)
class ExploreOptions:
    """Move the numbers of a CRF on a local page, and see what changes.

    The page needs no network, and nobody else can reach it unless --host says so.

    Attributes:
        source: a checkpoint, NAME.npz, or a folder of these (`python -m eval predict --write
            probabilities`).
        images: files and folders; with --split, names of its images, or none for all.
        split: take the images and their truth from this split of the checkpoint's data set.
        truth: masks of class ids, one for each image in order.
        data_root: where the data set lies now, if not where it was trained.
        host: the address to listen at; 0.0.0.0 opens the page to the network.
        port: the port; the first free one from 7860 on if not given.
        device: of the network; the CRF runs on the CPU.
    """

    source: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    split: Split | None = None
    truth: tuple[Path, ...] = ()
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    host: str = "127.0.0.1"
    port: int | None = None
    device: DeviceName = "auto"


def explorer_of(options: ExploreOptions) -> Explorer:
    """What the page shows.

    Raises:
        FileNotFoundError: no checkpoint, probabilities or image.
        ValueError: they do not fit each other.
    """
    scenes: Scenes
    if options.source.is_dir() or options.source.suffix == ".npz":
        if options.split is not None:
            raise ValueError("--split needs a checkpoint: pass masks of probabilities as --truth.")
        scenes = of_probabilities(options.source, options.images, options.truth)
        return Explorer(scenes, POST_HOC, "CHECKPOINT")
    checkpoint = read_checkpoint(options.source)
    segmenter = load_segmenter(checkpoint)
    start = setting_of(segmenter)
    note = "" if is_scalar(segmenter.config.crf) else LEARNT
    segmenter = segmenter.with_crf(None).to(device_named(options.device))
    if options.split is None:
        labels = labels_of(checkpoint, options.data_root)
        scenes = of_network(segmenter, labels, options.images, options.truth)
    else:
        if options.truth:
            raise ValueError("--split has its own truth: leave --truth out.")
        dataset = split_of(checkpoint["data"], options.split, options.data_root)
        labels = LabelSet(dataset.classes, dataset.scored, dataset.palette)
        scenes = of_split(segmenter, labels, dataset, options.images)
    return Explorer(scenes, start, str(options.source), note)


def explore_command(arguments: list[str]) -> None:
    """Parse, serve, and wait until the page is stopped."""
    options = tyro.cli(ExploreOptions, prog="python -m eval explore", args=arguments)
    page = build_page(explorer_of(options))
    address = serve(page, options.host, options.port)
    print(f"open {address} in a browser; Ctrl+C ends it")
    page.block_thread()
