"""What the labels of an ablation have in common is made once."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest

from models import CrfForm
from runtime.run_folder import as_json, read_json, write_json
from train.ablate.ablation import Ablation
from train.ablate.variants import Variant, expand, searched, sign_for_taken, take_over

UNTIED = {"crf.untied": True}


def pair(tiny, changes, *arms: str) -> tuple[Ablation, Variant, Variant]:
    """An ablation, its base and the variant with these changes."""
    mine = Ablation("mine", "", {"base": {}, "other": changes}, arms=arms)  # type: ignore[arg-type]
    base, other = expand(mine, tiny)
    return mine, base, other


def fill(out: Path, variant: Variant, *names: str, search: bool = False) -> Path:
    """Finish these arms of a variant; the folder of the last."""
    for name in names:
        folder = out / variant.digest / "arms" / name
        write_json(folder / "result.json", {"from": variant.digest})
        (folder / "checkpoint.pt").write_bytes(variant.digest.encode())
        for file in ("metrics.jsonl", "counts-tune.npz"):
            (folder / file).touch()
        if search:
            write_json(folder / "search.json", {"from": variant.digest})
    return folder


NETWORKS = ("start-seed0", "unary-seed0")

# Of the CRF's form: what a search sets itself or leaves out, and what acts in training alone.
NOT_IN_A_SEARCH = {"kernel_weights", "compatibility", "nonnegative", "theta_context", "untied"} | {
    *("num_iterations", "learn_unary_scale", "learn_theta")
}


def test_a_search_is_shared_where_no_field_of_the_form_that_acts_on_it_differs(tiny) -> None:
    config = as_json(asdict(tiny))
    for field in fields(CrfForm):
        other = {**config, "crf": {**config["crf"], field.name: "another"}}
        for arm in ("start", "unary"):
            same = searched(other, arm) == searched(config, arm)  # type: ignore[arg-type]
            assert same == (field.name in NOT_IN_A_SEARCH), field.name


@pytest.mark.parametrize(
    ("changes", "start", "unary", "search"),
    [
        ({"crf_fit.steps": 7}, True, True, True),
        ({"crf.resolution": 2}, True, True, False),
        ({"crf.kernel_weights": "matrix", "crf.untied": True}, True, True, True),
        ({"search.num_images": 1}, True, True, False),
        ({"fit.steps": 7}, True, False, True),
        ({"fit.crf_lr": 0.0, "fit.context_lr": 0.5}, True, True, True),
        ({"fit.loss.unary": 7.0}, True, False, True),
        ({"start.steps": 7}, False, False, None),
        ({"data.num_train": 7}, False, False, None),
        ({"augment.flip": False}, False, False, None),
        ({"model.min_size": 65}, False, False, None),
    ],
)
def test_what_a_change_leaves_alone_is_taken_over(
    tiny, tmp_path, changes, start, unary, search
) -> None:
    mine, base, other = pair(tiny, changes, "post-hoc", "joint")
    fill(tmp_path, base, *NETWORKS, search=True)
    take_over(other, mine.arms, [base, other], tmp_path)
    arms = tmp_path / other.digest / "arms"
    for name, taken in zip(NETWORKS, (start, unary), strict=True):
        assert (arms / name / "result.json").is_file() == taken
        if taken:
            assert (arms / name / "checkpoint.pt").read_bytes() == base.digest.encode()
            assert read_json(arms / name / "taken_over.json") == {"from": base.digest}
            found = {path.name for path in (arms / name).iterdir()}
            expected = {"checkpoint.pt", "result.json", "counts-tune.npz", "taken_over.json"}
            assert found == (expected | {"search.json"} if search else expected)
    assert not (arms / "unary-seed1").exists()  # the base has not finished it


def test_only_what_is_needed_and_finished_is_taken_over(tiny, tmp_path) -> None:
    mine, base, other = pair(tiny, {"crf.resolution": 2}, "joint")
    fill(tmp_path, base, "unary-seed0")
    start = tmp_path / base.digest / "arms" / "start-seed0"
    start.mkdir()
    (start / "checkpoint.pt").touch()  # in training
    assert take_over(other, mine.arms, [base, other], tmp_path) == []
    assert not (tmp_path / other.digest).exists()
    fill(tmp_path, base, "start-seed0")
    own = fill(tmp_path, other, "start-seed0")
    assert take_over(other, mine.arms, [base, other], tmp_path) == []
    assert (own / "checkpoint.pt").read_bytes() == other.digest.encode()


@pytest.mark.parametrize(
    ("changes", "arms", "taken"),
    [
        ({"crf.kernel_weights": "matrix"}, ("crf-only",), True),
        ({"crf.kernel_weights": "matrix"}, ("post-hoc", "joint"), True),
        ({"crf.kernel_weights": "matrix"}, ("unary", "joint"), False),
        ({"crf.resolution": 2}, ("crf-only",), False),
    ],
)
def test_post_hoc_is_taken_over_with_its_search(tiny, tmp_path, changes, arms, taken) -> None:
    mine, base, other = pair(tiny, changes, *arms)
    fill(tmp_path, base, *NETWORKS, search=True)
    fill(tmp_path, base, "post-hoc-seed0")
    take_over(other, mine.arms, [base, other], tmp_path)
    target = tmp_path / other.digest / "arms" / "post-hoc-seed0"
    assert target.is_dir() == taken
    if taken:
        assert read_json(target / "taken_over.json") == {"from": base.digest}


def test_a_search_is_not_put_behind_another_network(tiny, tmp_path) -> None:
    mine, base, other = pair(tiny, UNTIED, "post-hoc")
    fill(tmp_path, base, *NETWORKS, "post-hoc-seed0", search=True)
    own = fill(tmp_path, other, "unary-seed0")
    take_over(other, mine.arms, [base, other], tmp_path)
    assert not (own / "search.json").exists()
    assert not (own.parent / "post-hoc-seed0").exists()
    assert (own.parent / "start-seed0" / "search.json").is_file()


def test_what_is_taken_over_keeps_who_made_it(tiny, tmp_path) -> None:
    mine, base, other = pair(tiny, UNTIED, "joint")
    fill(tmp_path, base, "start-seed0")
    made = {"id": "one", "command": "python -m train ablate mine", "seconds": 5.0}
    write_json(tmp_path / base.digest / "origin.json", [made])
    take_over(other, mine.arms, [base, other], tmp_path)
    for _ in range(2):  # once is enough
        sign_for_taken(other, tmp_path)
        signed = read_json(tmp_path / other.digest / "origin.json")
        # The time is the other folder's.
        assert signed == [{**made, "seconds": 0.0, "taken_over": True}]
