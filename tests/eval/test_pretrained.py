"""The published network on five photographs, alone and with a post-hoc CRF: stored scores.

The full tier has all 445 photographs.
"""

from __future__ import annotations

import pytest
import torch

import data
from data import VocConfig
from data.voc import ANIMALS
from eval.inference import final_logits, image_of
from eval.metrics import Scorer, scores
from tests.eval.pretrained import POST_HOC, TOLERANCE, published_segmenter

NAMES = ("2008_003511", "2009_000412", "2009_003569", "2009_004504", "2010_006026")
# mIoU, mIoU within 3 px of void and pixel accuracy of the five together.
STORED = {"unary": (0.8774, 0.7305, 0.9795), "crf": (0.9195, 0.8143, 0.9864)}


@pytest.mark.data
@torch.no_grad()
def test_scores_of_five_photographs_are_those_that_were_stored(
    shared_root, voc_animals_root
) -> None:
    split = data.build(VocConfig(root=voc_animals_root, scored=ANIMALS), "tune")
    segmenter = published_segmenter(shared_root, POST_HOC)
    scorers = {kind: Scorer(split.classes, split.scored, [3]) for kind in STORED}
    for sample in (split[split.names.index(name)] for name in NAMES):
        coarse = segmenter.coarse_unary(image_of(sample, segmenter.device))
        for kind, scorer in scorers.items():
            logits = final_logits(segmenter, sample, coarse, use_crf=kind == "crf")
            scorer.update(sample.name, logits.argmax(0), sample.mask)
    for kind, scorer in scorers.items():
        result = scores(scorer.counts())
        found = result["miou"], result["trimap_miou"]["3"], result["pixel_accuracy"]
        assert found == pytest.approx(STORED[kind], abs=TOLERANCE[kind])
