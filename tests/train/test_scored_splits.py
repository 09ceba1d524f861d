"""While a method is looked for, the report split stays unseen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.metrics import SplitCounts, scores
from train.compare import compare
from train.protocol import Comparison


def test_an_arm_is_scored_on_the_chosen_split_alone(tiny, tmp_path, capsys) -> None:
    recipe = replace(tiny, score=("tune",))
    result = Comparison("collage", recipe, tmp_path, resume=False).run("joint", 0)
    assert list(result["metrics"]) == list(result["before_crf"]) == ["tune"]
    assert list(result["harm_rate"]) == ["tune"]
    arm = tmp_path / "arms" / "joint-seed0"
    assert sorted(path.name for path in arm.glob("counts-*")) == [
        "counts-tune-before-crf.npz",
        "counts-tune.npz",
    ]
    assert not (tmp_path / "predictions").exists()
    assert "report" not in capsys.readouterr().out


def test_what_was_counted_ahead_of_the_crf_is_the_networks_own_arm(tiny, tmp_path) -> None:
    results = Comparison("collage", tiny, tmp_path, resume=False)
    searched, network = results.run("post-hoc", 0), results.run("unary", 0)
    assert searched["before_crf"] == network["metrics"]
    first, second = (
        SplitCounts.load(tmp_path / "arms" / name)
        for name in ("post-hoc-seed0/counts-report-before-crf.npz", "unary-seed0/counts-report.npz")
    )
    assert scores(first) == scores(second)


def test_a_comparison_without_the_report_split_is_refused(tiny, tmp_path) -> None:
    with pytest.raises(ValueError, match="--score tune report"):
        compare("collage", replace(tiny, score=("tune",)), tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("splits", [(), ("tune", "tune")])
def test_splits_are_named_once(tiny, splits) -> None:
    with pytest.raises(ValueError, match="score must name"):
        replace(tiny, score=splits)
