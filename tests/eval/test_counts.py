"""What is kept on disk of every image: nothing is lost, any set of images can be scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eval.metrics import Scorer, SplitCounts, gains, harm_rate, joined, scores

CLASSES = ("sky", "cow", "grass")


def scorer_of(seeds: list[int], *, shift: int = 1, with_logits: bool = True) -> Scorer:
    scorer = Scorer(CLASSES, (0, 1), trimap_widths=(1, 3))
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        mask = torch.randint(0, 3, (8, 9 + seed), generator=generator).sort(1).values
        mask[0] = 255
        logits = torch.randn(3, *mask.shape, generator=generator)
        prediction = mask.clamp(max=2).roll(shift, 1)
        scorer.update(f"image {seed}", prediction, mask, logits if with_logits else None)
    return scorer


def same(a: SplitCounts, b: SplitCounts) -> bool:
    return scores(a) == scores(b) and a.names == b.names and a.widths == b.widths


def test_a_file_gives_back_what_was_saved(tmp_path) -> None:
    counts = scorer_of([0, 1, 2]).counts()
    path = tmp_path / "folder" / "counts-report.npz"
    counts.save(path)
    back = SplitCounts.load(path)
    assert same(back, counts)
    assert back.confusions.dtype == np.int64
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_bands_add_up_to_the_confusion() -> None:
    counts = scorer_of([0, 1]).counts()
    assert (counts.within(1) <= counts.within(3)).all()
    assert (counts.within(3) <= counts.confusions).all()
    assert counts.confusions.sum() == 7 * 9 + 7 * 10
    with pytest.raises(ValueError, match=r"no trimap width of 2 px: counted were \(1, 3\)"):
        counts.within(2)


def test_parts_join_in_the_order_of_the_split() -> None:
    whole = scorer_of([0, 1, 2, 3]).counts()
    parts = [scorer_of(seeds).counts() for seeds in ([0, 2], [1, 3], [])]
    assert same(joined(parts, whole.names), whole)
    with pytest.raises(ValueError, match="scored more than once: image 0"):
        joined([parts[0], parts[0]], whole.names)


def test_some_images_are_those_images() -> None:
    whole = scorer_of([0, 1, 2]).counts()
    assert same(whole.of(["image 2", "image 0"]), scorer_of([2, 0]).counts())
    with pytest.raises(KeyError):
        whole.of(["image 7"])


def test_without_logits_there_is_no_likelihood() -> None:
    result = scores(scorer_of([0], with_logits=False).counts())
    assert (result["nll"], result["brier"], result["ece"]) == (None, None, None)
    assert result["miou"] is not None


def test_refuses_logits_of_another_shape() -> None:
    scorer = Scorer(CLASSES, (0,))
    mask = torch.zeros(4, 5).long()
    with pytest.raises(ValueError, match=r"cow7: expected logits \(3, 4, 5\), got \(2, 4, 5\)"):
        scorer.update("cow7", mask, mask, torch.zeros(2, 4, 5))


def test_refuses_what_is_no_file_of_counts(tmp_path) -> None:
    path = tmp_path / "counts-report.npz"
    with pytest.raises(FileNotFoundError, match="no counts at"):
        SplitCounts.load(path)
    scorer_of([0, 1]).counts().save(path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"is damaged: .*Score the run again"):
            SplitCounts.load(path)
    path.write_text("not an archive")
    with pytest.raises(ValueError, match="is damaged"):
        SplitCounts.load(path)
    np.savez(path, format=0)
    with pytest.raises(ValueError, match="counts of format 0, this version reads 1"):
        SplitCounts.load(path)
    np.savez(path, names=np.array(["a"]))
    with pytest.raises(ValueError, match="is damaged"):
        SplitCounts.load(path)


def test_harm_is_counted_by_image() -> None:
    before = scorer_of([0, 1, 2], shift=1).counts()
    better, worse = (scorer_of([0, 1, 2], shift=shift).counts() for shift in (0, 3))
    assert harm_rate(before, better) == 0.0
    assert harm_rate(before, worse) == 1.0
    assert harm_rate(before, before) == 0.0  # no change does no harm
    strength, gained = gains(before, better)
    assert (strength + gained).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="same images"):
        harm_rate(before, better.of(["image 1", "image 0", "image 2"]))
