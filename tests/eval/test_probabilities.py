"""Probabilities return from their file, and other files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import CollageConfig
from data.label_set import label_set
from eval.probabilities import Probabilities, read_probabilities, write_probabilities


def probabilities(*, crf: bool) -> Probabilities:
    labels = label_set(CollageConfig())
    q = np.random.default_rng(0).dirichlet(np.ones(len(labels.classes)), (4, 6))
    unary = q.transpose(2, 0, 1).astype(np.float16)
    return Probabilities(labels, unary, unary[:, ::-1] if crf else None)


@pytest.mark.parametrize("crf", [False, True])
def test_they_return(tmp_path: Path, crf: bool) -> None:
    written = probabilities(crf=crf)
    path = tmp_path / "new" / "image.npz"
    write_probabilities(path, written)
    read = read_probabilities(path)
    assert np.array_equal(read.unary, written.unary)
    assert (read.crf is None) == (written.crf is None)
    if read.crf is not None and written.crf is not None:
        assert np.array_equal(read.crf, written.crf)
    assert read.labels.classes == written.labels.classes
    assert read.labels.scored == written.labels.scored
    assert np.array_equal(read.labels.palette, written.labels.palette)


def test_what_is_not_such_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.npz"
    with pytest.raises(FileNotFoundError, match=r"no probabilities at .*--write probabilities"):
        read_probabilities(path)
    path.write_text("text")
    with pytest.raises(ValueError, match=r"image\.npz is damaged or no \.npz file"):
        read_probabilities(path)
    np.savez(path, unary=np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"image\.npz lacks classes, palette, scored"):
        read_probabilities(path)
    np.savez(path, unary=np.array([{}]), classes=["a"], scored=[0], palette=np.zeros((256, 3)))
    with pytest.raises(ValueError, match=r"image\.npz is damaged \(.*pickle"):
        read_probabilities(path)


def held(**changes: Any) -> dict[str, Any]:
    q = probabilities(crf=False)
    values = {
        "unary": q.unary,
        "classes": np.array(q.labels.classes),
        "scored": np.array(q.labels.scored),
        "palette": q.labels.palette,
    }
    return {**values, **changes}


def test_shapes_and_sums_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "image.npz"
    np.savez(path, **held(crf=np.zeros((2, 4, 6))))
    with pytest.raises(ValueError, match=r"crf must be \(\d+, H, W\), one map for each class"):
        read_probabilities(path)
    np.savez(path, **held(classes=np.array(["one", "two"])))
    with pytest.raises(ValueError, match=r"unary must be \(2, H, W\), one map for each class"):
        read_probabilities(path)
    np.savez(path, **held(unary=-5 * held()["unary"]))
    with pytest.raises(ValueError, match="must sum to one over the classes: are these logits"):
        read_probabilities(path)
