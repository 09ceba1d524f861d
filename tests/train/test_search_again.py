"""The searches of the arm joint: what it starts from, and what it may end with."""

from __future__ import annotations

import json
from dataclasses import replace

import torch

from eval.checkpoint import load_segmenter, read_checkpoint
from train.protocol import Comparison


def test_joint_ends_with_a_searched_crf_behind_its_own_network(tiny, tmp_path) -> None:
    recipe = replace(tiny, score=("tune",), search_again=True)
    comparison = Comparison("collage", recipe, tmp_path, resume=False)
    result = comparison.run("joint", 0)
    arm = tmp_path / "arms" / "joint-seed0"
    trained = read_checkpoint(arm / "trained" / "checkpoint.pt")
    kept = read_checkpoint(arm / "checkpoint.pt")
    crf = load_segmenter(kept).config.crf
    assert crf is not None
    assert (crf.kernel_weights, crf.compatibility) == ("scalar", "potts")
    found = comparison.runner.search("joint", 0)
    assert crf == found.best
    assert load_segmenter(trained).config.crf != crf
    for name, value in kept["model"].items():
        if name.startswith("network."):
            assert torch.equal(value, trained["model"][name])
    assert result["network_steps"] == 4
    kept_search = json.loads((arm / "search.json").read_text())
    assert result["search"] == kept_search["rows"]

    # interrupted before it was scored, it goes on to the same
    (arm / "result.json").unlink()
    again = Comparison("collage", recipe, tmp_path, resume=True).run("joint", 0)
    assert again["metrics"] == result["metrics"]


def test_a_search_taken_over_starts_a_crf_of_the_recipes_own_form(tiny, tmp_path) -> None:
    one = Comparison("collage", tiny, tmp_path / "one", resume=False)
    one.run("start", 0)
    searched = one.runner.search("start", 0).best
    crf = replace(tiny.crf, num_iterations=3, untied=True, kernel_weights="matrix")
    other = Comparison("collage", replace(tiny, crf=crf), tmp_path / "two", resume=False)
    for name in ("checkpoint.pt", "result.json", "search.json"):
        target = tmp_path / "two" / "arms" / "start-seed0" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "one" / "arms" / "start-seed0" / name).read_bytes())
    other.run("joint", 0)
    kept = load_segmenter(read_checkpoint(other.runner.folder.checkpoint("joint", 0))).config.crf
    assert kept is not None
    assert (kept.num_iterations, kept.untied, kept.kernel_weights) == (3, True, "matrix")
    assert kept.theta_alpha == searched.theta_alpha
