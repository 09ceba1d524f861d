"""The search of the post-hoc CRF: it scores what the layer computes, finds the best, goes on."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from scipy.optimize import minimize_scalar

import data
from crfrnn.__main__ import main as crfrnn_main
from data import VOID
from eval.__main__ import main
from eval.grid import AXES, SearchConfig, Setting, coarse_to_fine, evenly_spaced
from eval.inference import evaluate
from eval.metrics import Scorer, confusion_matrix, mean_iou, scores
from eval.search import LIKELIHOOD_STRIDE, search
from eval.tune import TuneOptions, tune
from models import CrfConfig, CrfForm
from tests.eval.plain_networks import FORM, SCENES, SEARCH, hints, journal, network, options

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


H, W = 36, 48
NAMES = "abcde"
LABELS = 3
COLOURS = np.array([[60, 60, 60], [200, 80, 60], [70, 170, 90]])
MAPS_GRID = shlex.split(
    "--workers 1 --grid.theta-gamma 1 --grid.spatial-weight 1 --grid.theta-alpha 8 16 "
    "--grid.theta-beta 20 --grid.bilateral-weight 2 4 --grid.rounds 1 "
    "--crf.normalization symmetric --crf.num-iterations-eval 4"
)


def truth(seed: int) -> np.ndarray:
    """Two discs on a background, (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    ids = np.zeros((H, W), np.uint8)
    for label in (1, 2):
        cy, cx = rng.uniform((8, 8), (H - 8, W - 8))
        ids[(y - cy) ** 2 + (x - cx) ** 2 < 80] = label
    return ids


def maps(ids: np.ndarray, seed: int) -> np.ndarray:
    """P (L, H, W) that knows the truth a little at every pixel."""
    rng = np.random.default_rng(seed)
    hot = np.eye(LABELS)[ids].transpose(2, 0, 1)
    logits = torch.from_numpy(1.5 * hot + rng.standard_normal(hot.shape))
    return logits.softmax(0).float().numpy()


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Five photographs, five masks; the maps are the test's."""
    found = {name: tmp_path / name for name in ("images", "maps", "masks", "out")}
    for name in ("images", "maps", "masks"):
        found[name].mkdir()
    for seed, name in enumerate(NAMES):
        ids = truth(seed)
        noise = np.random.default_rng(seed).normal(0, 8, (H, W, 3))
        photo = (COLOURS[ids] + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(photo).save(found["images"] / f"{name}.png")
        Image.fromarray(ids).save(found["masks"] / f"{name}.png")
    return found


def tune_maps(folders: dict[str, Path], *options: str) -> dict[str, Any]:
    words = ["tune", str(folders["maps"]), "--out", str(folders["out"])]
    words += ["--maps.images", str(folders["images"]), "--maps.masks", str(folders["masks"])]
    main([*words, *MAPS_GRID, *options])
    result: dict[str, Any] = json.loads((folders["out"] / "best.json").read_text())
    return result


def miou_of_line(line: str, folders: dict[str, Path], names: str = NAMES) -> float:
    """Run the line that `tune` printed, and score its masks."""
    words = shlex.split(line)
    out = folders["out"] / "masks"
    words[words.index("--out") + 1] = str(out)
    assert words[0] == "crfrnn"
    assert crfrnn_main(words[1:]) == 0
    counts = np.zeros((LABELS, LABELS), np.int64)
    for name in names:
        predicted = np.array(Image.open(out / f"{name}.png"))
        counts += confusion_matrix(truth(NAMES.index(name)), predicted, LABELS)
    return float(mean_iou(counts, range(LABELS)))


def test_the_lines_to_paste_give_the_scores_that_were_found(folders, capsys) -> None:
    for seed, name in enumerate(NAMES):
        np.save(folders["maps"] / f"{name}.npy", maps(truth(seed), seed).astype(np.float16))
    result = tune_maps(folders, "--grid.bias", "0.5", "1", "--label-floor", "0")
    assert result["crf_helps"]
    assert result["best"]["miou"] > result["network"]["miou"] + 0.05
    assert result["refine"] in capsys.readouterr().out
    assert miou_of_line(result["refine"], folders) == pytest.approx(
        result["best"]["miou"], abs=1e-3
    )
    image = np.array(Image.open(folders["images"] / "a.png"))
    names: dict[str, Any] = {"maps": np.load(folders["maps"] / "a.npy"), "image": image}
    exec(result["code"], names)
    mask = np.array(Image.open(folders["out"] / "masks" / "a.png"))
    np.testing.assert_array_equal(names["q"].argmax(0), mask)


def test_maps_of_some_labels_and_masks_of_some_photographs(folders) -> None:
    """Maps name their labels; of two masks, one names no label at places."""
    for seed, name in enumerate(NAMES):
        p = maps(truth(seed), seed)
        kept = [0, 1] if name == "c" else [0, 2, 1]
        p = p[kept] / p[kept].sum(0)
        np.savez(folders["maps"] / f"{name}.npz", keys=np.array(kept), high_res=p)
    for name in "bde":
        (folders["masks"] / f"{name}.png").unlink()
    ids = truth(0)
    ids[:4] = 255
    Image.fromarray(ids).save(folders["masks"] / "a.png")
    result = tune_maps(folders)
    assert result["images"] == ["a", "c"]
    assert miou_of_line(result["refine"], folders, "ac") > result["network"]["miou"]


def test_foreground_maps_with_masks_of_0_and_255(folders, capsys) -> None:
    for seed, name in enumerate(NAMES):
        p = maps(truth(seed), seed)
        Image.fromarray((255 * (1 - p[0])).astype(np.uint8)).save(folders["maps"] / f"{name}.png")
        Image.fromarray(255 * (truth(seed) > 0).astype(np.uint8)).save(
            folders["masks"] / f"{name}.png"
        )
    result = tune_maps(folders, "--maps.kind", "probabilities")
    assert result["best"]["miou"] > result["network"]["miou"]
    assert "--kind probabilities" in result["refine"]
    # The truth needs no CRF.
    for seed, name in enumerate(NAMES):
        soft = np.where(truth(seed) > 0, 0.95, 0.05).astype(np.float32)
        (folders["maps"] / f"{name}.png").unlink()
        np.save(folders["maps"] / f"{name}.npy", soft)
    folders["out"] = folders["out"].with_name("second")
    assert not tune_maps(folders)["crf_helps"]
    assert "leave the CRF out" in " ".join(capsys.readouterr().out.split())


def test_what_does_not_fit_is_said_before_the_search(folders, capsys) -> None:
    words = ["tune", str(folders["maps"])]
    with pytest.raises(SystemExit, match=r"pass --maps\.images and --maps\.masks"):
        main(words)
    words += ["--maps.images", str(folders["images"]), "--maps.masks", str(folders["masks"])]
    with pytest.raises(SystemExit, match=r"no photograph of .* has both maps"):
        main(words)
    for option, said in (
        ("--score-report", "has no report split"),
        ("--crf.resolution=2", "one that `crfrnn refine` takes"),
    ):
        with pytest.raises(SystemExit):
            main([*words, option])
        assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
    np.save(folders["maps"] / "a.npy", np.full((2, H, W), 0.5, np.float32))
    with pytest.raises(SystemExit, match=r"holds the ids \[0, 1, 2\], the maps have 2 labels"):
        main(words)
