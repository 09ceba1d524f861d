"""The search of the post-hoc CRF: it scores what the layer computes, finds the best, goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from safetensors.torch import save_file
from scipy.optimize import minimize_scalar

import data
from data import VOID, Sample
from eval.__main__ import main
from eval.grid import AXES, SearchConfig, Setting, coarse_to_fine, evenly_spaced
from eval.inference import evaluate
from eval.metrics import Scorer, scores
from eval.search import LIKELIHOOD_STRIDE, PreparedImage, calibrate, search
from eval.tune import TuneOptions, tune
from models import CrfConfig, CrfForm
from tests.eval.tune_case import FORM, SCENES, SEARCH, hints, journal, network, options

BASE = CrfConfig(**{**asdict(FORM), "theta_gamma": 1.0, "spatial_weight": 1.0})
SETTING = replace(BASE, theta_alpha=10.0, theta_beta=10.0, bilateral_weight=2.0)


def test_the_grid_closes_in_on_the_maximum() -> None:
    peak = {"theta_alpha": 48.0, "theta_beta": 4.2, "bilateral_weight": 5.0}
    seen: dict[Setting, float] = {}
    stages = []

    def height(stage: str, settings: Sequence[Setting]) -> list[float]:
        assert not set(settings) & set(seen)  # nothing twice
        stages.append(stage)
        for setting in settings:
            off = [math.log(getattr(setting.crf, name) / top) for name, top in peak.items()]
            squares = (off[0], 2 * off[1], off[2], setting.bias - 1.2)
            seen[setting] = -sum(o**2 for o in squares)
        return [seen[setting] for setting in settings]

    config = SearchConfig(
        theta_alpha=(30.0, 60.0, 90.0), theta_beta=(3.0, 6.0), bilateral_weight=(3.0, 6.0),
        bias=(1.0, 1.2), rounds=4,
    )  # fmt: skip
    best = coarse_to_fine(config, BASE, height)
    assert seen[best] == max(seen.values())
    # Steps of the grid are 30, 3 and 3, and a round moves one value: a quarter of each is left.
    for (name, top), step in zip(peak.items(), (30, 3, 3), strict=True):
        assert getattr(best.crf, name) == pytest.approx(top, abs=step / 4)
    assert stages == ["coarse", "bias", "fine 1", "fine 2", "fine 3", "fine 4"]
    assert best.bias == 1.2
    assert [setting.bias for setting in seen][:14] == [*[0.0] * 12, 1.0, 1.2]
    assert evenly_spaced(3, 11) == [0, 5, 10]  # the images that are searched on


@pytest.fixture(scope="module")
def coarse() -> dict[str, torch.Tensor]:
    return hints()


def test_calibration_finds_the_factor_that_was_hidden(coarse) -> None:
    """Labels drawn from softmax(3 logits) are calibrated at 3, whatever the logits are."""
    split, crf = data.build(SCENES, "tune"), replace(SETTING, bilateral_weight=0.5)

    def prepared(sample: Sample, mask: torch.Tensor, stride: int) -> PreparedImage:
        sample = replace(sample, mask=mask)
        return PreparedImage(network(), sample, coarse[sample.name], stride=stride)

    images = []
    for sample in (split[k] for k in range(3)):
        everywhere = prepared(sample, torch.zeros_like(sample.mask), 1)
        (refined,) = everywhere.refined([Setting(crf)])
        drawn = torch.multinomial((3 * refined.sampled).softmax(1), 1)
        images.append(prepared(sample, drawn.reshape(sample.mask.shape), 7))
    # Twelve thousand labels, one in seven used: a few tenths of sampling error.
    for scale, expected in ((1.0, 3), (3.0, 1)):
        known = Setting(replace(crf, output_scale=scale))
        assert calibrate(images, known) == pytest.approx(expected, rel=0.3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[TuneOptions, dict[str, Any]]:
    given = options(tmp_path_factory.mktemp("tune"), label_floor=0.0)
    return given, tune(given, Console(quiet=True))


def test_the_command_finds_what_training_finds(finished, coarse) -> None:
    given, result = finished
    assert result["best"]["miou"] > result["network"]["miou"]
    first, *rows = journal(given.out)
    assert (first["stage"], first["setting"]) == ("network", None)
    best, _, expected = search(network(), FORM, data.build(SCENES, "tune"), coarse, SEARCH)
    assert best.output_scale != 1.0  # calibrated
    assert all(result["setting"][name] == getattr(best, name) for name in AXES)
    by_setting = {tuple(r["setting"][n] for n in AXES): r["scores"]["miou"] for r in rows}
    assert by_setting == {tuple(r[n] for n in AXES): r["miou"] for r in expected}


def test_scores_of_the_best_are_those_of_the_segmenter_with_that_crf(coarse, tmp_path) -> None:
    form = replace(FORM, resolution=2, normalization="symmetric")
    # Labels are left out while it searches; the best is scored again with all.
    given = options(tmp_path, trimap_width=2, label_floor=1e-2, crf=form)
    result = tune(given, Console(quiet=True))
    setting = replace(CrfConfig(**result["setting"]), output_scale=1.0)
    split, segmenter = data.build(SCENES, "tune"), network().with_crf(setting).eval()
    scorer, rows, labels = Scorer(split.classes, split.scored, [2], band="edge"), [], []
    for sample in (split[k] for k in range(len(split))):
        image = sample.image[None].float()
        with torch.no_grad():
            unary = segmenter.enlarge(coarse[sample.name], image.shape[2:])
            (logits,) = segmenter.refine(unary, image)
        scorer.update(sample.name, logits.argmax(0), sample.mask)
        labelled = (sample.mask != VOID).flatten().nonzero()[::LIKELIHOOD_STRIDE, 0]
        rows.append(logits.flatten(1).t()[labelled].double())
        labels.append(sample.mask.flatten()[labelled])
    found, expected = result["best"], scores(scorer.counts())
    assert found["miou"] == pytest.approx(expected["miou"], abs=1e-12)
    assert found["trimap_miou"] == pytest.approx(expected["trimap_miou"]["2"], abs=1e-12)
    z, y = torch.cat(rows), torch.cat(labels)
    fitted = minimize_scalar(
        lambda log_scale: F.cross_entropy(z * math.exp(log_scale), y).item(),
        bounds=(-4.8, 0.6),
        method="bounded",
    )
    assert found["nll"] == pytest.approx(fitted.fun, abs=1e-4)  # of the spline, see objective.py
    # The top is flat.
    assert result["setting"]["output_scale"] == pytest.approx(math.exp(fitted.x), rel=0.03)


def test_a_run_that_was_killed_goes_on_to_the_same_end(finished, tmp_path, monkeypatch) -> None:
    given, result = finished
    part = options(tmp_path, label_floor=0.0, resume=True)
    lines = (given.out / "settings.jsonl").read_text().splitlines()
    (part.out / "settings.jsonl").write_text("\n".join(lines[:4]) + '\n{"stage": "coa')
    config = (given.out / "config.json").read_text()
    (part.out / "config.json").write_text(config)
    assert tune(part, Console(quiet=True))["setting"] == result["setting"]
    assert journal(part.out) == journal(given.out)
    # Now it is finished: nothing is measured again.
    monkeypatch.setattr("eval.tune.Evaluator.__call__", lambda *a: pytest.fail("again"))
    assert tune(part, Console(quiet=True))["setting"] == result["setting"]


def test_a_folder_of_another_tuning_or_a_damaged_one_is_refused(finished, tmp_path) -> None:
    given, _ = finished
    with pytest.raises(ValueError, match=r"another configuration: objective was 'miou', now 'nll'"):
        tune(replace(given, objective="nll", resume=True), Console(quiet=True))
    with pytest.raises(FileExistsError, match="holds a tuning already: --resume"):
        tune(given, Console(quiet=True))
    damaged = options(tmp_path)
    (damaged.out / "settings.jsonl").write_text('{"a": 1}\n{"a": 3}\n')
    with pytest.raises(ValueError, match=r"settings.jsonl, line 1 is no score .*delete the folder"):
        tune(damaged, Console(quiet=True))


def test_the_command_runs_the_network_once_and_scores_report(tmp_path, capsys, monkeypatch) -> None:
    given = options(tmp_path)
    logits = given.out / "logits.safetensors"
    save_file(hints(), logits, metadata={"checkpoint": "another"})  # computed again
    words = f"tune {given.checkpoint} --out {given.out} --workers 1 --num-images 2 --score-report"
    words += " --crf.num-iterations-eval 2 --grid.theta-alpha 30 --grid.theta-beta 3"
    words += " --grid.bias 0.5 1 --preset deeplab_v2_resnet101"
    main(words.split())
    result = json.loads((given.out / "best.json").read_text())
    assert "report split, miou" in capsys.readouterr().out
    rows = [row for row in journal(given.out) if row["setting"] and row["stage"] != "all labels"]
    values = [row["scores"]["miou"] for row in rows]
    assert (result["settings"], result["best_with_label_floor"]["miou"]) == (len(rows), max(values))
    assert {row["stage"] for row in rows} == {"start", "coarse", "bias", "fine 1", "fine 2"}
    alone = [row["bias"] for row in journal(given.out) if row["stage"] == "network"]
    assert alone == [0.0, 0.5, 1.0]
    monkeypatch.setattr("models.Segmenter.coarse_unary", lambda *a: pytest.fail("run again"))
    main([*words.replace(" --score-report", "").split(), "--resume"])
    assert json.loads((given.out / "best.json").read_text())["report"] == result["report"]


def test_a_bias_of_the_labels_is_found_with_the_crf(coarse, tmp_path: Path) -> None:
    """Logits that say label 3 too often by 4 nats are put right by as much."""
    split = data.build(SCENES, "tune")
    direction = torch.nn.functional.one_hot(torch.tensor(3), len(split.classes)).float()
    wrong = {name: logits + 4 * direction[:, None, None] for name, logits in coarse.items()}
    form = replace(FORM, resolution=2)
    config = replace(SEARCH, bias=(2.0, 4.0, 6.0), rounds=0)
    best, bias, rows = search(network(), form, split, wrong, config, direction)
    assert bias == 4.0
    assert [row["bias"] for row in rows] == [0.0, 0.0, 0.0, 0.0, 2.0, 4.0, 6.0]
    right = network().with_crf(best)
    right.add_label_bias((bias * direction).tolist())
    expected = scores(evaluate(right, split, wrong))["miou"]
    assert max(row["miou"] for row in rows) == pytest.approx(expected, abs=1e-12)


def test_options_that_do_not_fit_are_refused() -> None:
    for changes, message in (
        ({"workers": 0}, "--workers must be at least 1, got 0"),
        ({"label_floor": 1.0}, "--label-floor is a probability .*got 1.0"),
        ({"crf": CrfForm()}, "--crf.kernel-weights class: tune finds one weight per kernel"),
        ({"crf": replace(FORM, damping=0.5)}, "leaves labels out of undamped mean field alone"),
    ):
        with pytest.raises(ValueError, match=message):
            TuneOptions(Path("checkpoint.pt"), **changes)
    with pytest.raises(ValueError, match=r"search\.theta_alpha must hold values above 0, got \(\)"):
        SearchConfig(theta_alpha=())
    with pytest.raises(ValueError, match=r"search\.num_images must be at least 1"):
        SearchConfig(num_images=0)
