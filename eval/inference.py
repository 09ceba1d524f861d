"""Whole images at native size: never crops, never resized labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from data import Sample, SegmentationDataset
from eval.metrics import Scorer, SplitCounts, joined
from eval.prediction_files import write_mask
from models import Segmenter
from runtime import distributed

# image name -> the network's logits at its stride, (1, L, h, w), on the CPU
Coarse = dict[str, Tensor]


@torch.no_grad()
def coarse_unaries(segmenter: Segmenter, dataset: SegmentationDataset) -> Coarse:
    """The network once per image; a hundred kilobytes each, so many CRFs can share them.

    Of several processes each has its share of the images, see `samples`.
    """
    segmenter.eval()
    device = segmenter.device
    return {s.name: segmenter.coarse_unary(image_of(s, device)).cpu() for s in samples(dataset)}


@torch.no_grad()
def final_logits(segmenter: Segmenter, sample: Sample, coarse: Tensor, *, use_crf: bool) -> Tensor:
    """The logits of one image at its own size, (L, H, W).

    Args:
        segmenter: in eval mode.
        sample: the image.
        coarse: its `coarse_unaries` entry.
        use_crf: take the CRF's logits instead of the network's.
    """
    image = image_of(sample, segmenter.device)
    logits = segmenter.enlarge(coarse.to(segmenter.device), image.shape[2:])
    if use_crf:
        logits = segmenter.refine(logits, image)
    return logits[0]


def evaluate(
    segmenter: Segmenter,
    dataset: SegmentationDataset,
    coarse: Coarse,
    *,
    use_crf: bool = True,
    save_to: Path | None = None,
) -> SplitCounts:
    """What a data set's scores come from, with the CRF where the segmenter has one.

    Several processes count on their share each, and every image counts once.

    Args:
        segmenter: network and CRF; only the CRF runs here.
        dataset: a split.
        coarse: the network's logits of every image of the split.
        use_crf: off scores the network alone.
        save_to: folder for the predictions as palette PNGs, or none.

    Returns:
        The counts of all images, in the data set's order, the same in every process.
    """
    segmenter.eval()
    scorer = Scorer(dataset.classes, dataset.scored, band="void" if dataset.has_void else "edge")
    use_crf = use_crf and segmenter.crf is not None
    for sample in samples(dataset):
        logits = final_logits(segmenter, sample, coarse[sample.name], use_crf=use_crf)
        prediction = labels_of(logits)
        scorer.update(sample.name, prediction, sample.mask, logits)
        if save_to is not None:
            write_mask(save_to / f"{sample.name}.png", prediction.numpy(), dataset.palette)
    return joined(distributed.gathered(scorer.counts()), dataset.names)


def labels_of(logits: Tensor) -> Tensor:
    """The most likely label of every pixel of one image, (L, H, W) to (H, W), on the CPU."""
    return logits.max(0).indices.cpu()  # argmax takes six times as long


def samples(dataset: SegmentationDataset) -> Iterator[Sample]:
    """This process's samples of a split, in order: every n-th of n processes, none twice."""
    for index in own_share(range(len(dataset))):
        yield dataset[index]


def own_share(indices: Sequence[int]) -> list[int]:
    """Those of some samples of a split whose logits this process has."""
    n = distributed.num_processes()
    return [index for index in indices if index % n == distributed.rank()]


def image_of(sample: Sample, device: torch.device) -> Tensor:
    """The image as the models take it: (1, 3, H, W) float32, RGB in 0..255."""
    return sample.image[None].to(device).float()
