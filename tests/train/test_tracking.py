"""The numbers of a training: of its CRF, in JSON lines, and in Weights & Biases."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import wandb

import data
from crfrnn.diagnostics import free_energy, relaxed_energy
from data import CollageConfig
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from models import CrfConfig, Segmenter, SegmenterConfig
from models.layers import shrink, shrink_image
from tests.train.world import tiny_recipe
from train.crf_trace import crf_gradient_norms, crf_scalars, iteration_trace
from train.tracking import RunTracker, wandb_mode


@pytest.fixture
def runs(monkeypatch) -> list[MagicMock]:
    """The runs that are begun in this test, instead of W&B's own: they remember what is asked."""
    begun: list[MagicMock] = []

    def init(**options: Any) -> MagicMock:
        begun.append(MagicMock(options=options, id=options["id"], disabled=False, summary={}))
        return begun[-1]

    def image(picture: Any, masks: Any = None, caption: str = "") -> SimpleNamespace:
        return SimpleNamespace(picture=picture, masks=masks)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "Image", image)
    return begun


def rows_of(run: MagicMock) -> list[dict[str, Any]]:
    """What it was told, row by row."""
    return [call.args[0] for call in run.log.call_args_list]


@pytest.fixture
def _no_key(monkeypatch, tmp_path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no .netrc


@pytest.fixture(scope="module")
def scored():
    """(segmenter with a matrix CRF, the tune split, its scores)."""
    tiny = tiny_recipe()
    dataset = data.build(CollageConfig(size=33, num_tune=10), "tune")
    form = replace(tiny.crf, kernel_weights="matrix", resolution=2)
    crf = CrfConfig(**asdict(form), theta_alpha=6.0)
    torch.manual_seed(0)
    segmenter = Segmenter(SegmenterConfig(len(dataset.classes), tiny.model.network, crf)).eval()
    counts = evaluate(segmenter, dataset, coarse_unaries(segmenter, dataset))
    return segmenter, dataset, scores(counts)


def lines_of(tracker: RunTracker) -> list[dict[str, Any]]:
    return [json.loads(line) for line in tracker.path.read_text().splitlines()]


def test_a_resumed_run_rewinds_its_lines_and_writes_its_result_once(tmp_path, scored) -> None:
    _, _, metrics = scored
    with RunTracker(tmp_path, "disabled", "group", "name", {}) as tracker:
        for step in (1, 2, 3):
            tracker.log(step, {"loss": 1.0 / step})
        with tracker.path.open("a") as file:
            file.write('{"step": 2, "lo')  # killed here
        tracker.rewind(2)
        tracker.log(3, {"loss": 0.25})
        for _ in range(2):
            tracker.log_scores({"tune": metrics})
    *steps, result = lines_of(tracker)
    assert [line["loss"] for line in steps] == [1.0, 0.5, 0.25]
    assert list(result) == ["scores"]


def test_a_resumed_arm_is_one_run_whose_axis_is_the_step(tmp_path, runs) -> None:
    """W&B's own step only grows, and would drop the steps that are taken again."""
    for first, given in ((1, None), (3, None), (4, "fedcba98"), (5, None)):
        with RunTracker(tmp_path, "online", "group", "name", {}, run_id=given) as tracker:
            tracker.rewind(first - 1)
            for step in range(first, 6):
                tracker.log(step, {"loss": 1 / step})
        assert tracker.run_id == runs[-1].id == (tmp_path / "wandb_id.txt").read_text()
    ids = [run.id for run in runs]
    assert ids[0] == ids[1] != ids[2] == ids[3] == "fedcba98"
    for run in runs:
        assert run.options["resume"] == "allow"
        run.define_metric.assert_called_with("*", step_metric="step")
    assert [row["step"] for row in rows_of(runs[1])] == [3, 4, 5]
    assert [line["step"] for line in lines_of(tracker)] == [1, 2, 3, 4, 5]


def test_wandb_gets_the_numbers_of_the_lines_with_tables_and_pictures(tmp_path, runs, scored):
    segmenter, dataset, metrics = scored
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(b"weights")
    config = {"recipe": "collage", "fit": {"lr": 0.1}}
    with RunTracker(tmp_path, "offline", "a group", "joint-seed0", config) as tracker:
        tracker.log(1, {"loss": 1.0})
        segmenter.train().network.eval()  # as a frozen network
        modes = [module.training for module in segmenter.modules()]
        tracker.log_evaluation(2, segmenter, dataset, metrics)
        assert modes == [module.training for module in segmenter.modules()]
        tracker.log_checkpoint(checkpoint, ["best", "final"])
        with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*absent\.pt"):
            tracker.log_checkpoint(tmp_path / "absent.pt", ["best"])
        tracker.log_scores({"tune": metrics})
        tracker.log_images(segmenter, dataset)
    (run,) = runs
    assert run.options["config"].items() >= config.items()
    assert (run.options["group"], run.options["name"]) == ("a group", "joint-seed0")
    run.finish.assert_called_once_with(exit_code=0)
    (line, evaluation, result, *_), (sent, row, *_) = lines_of(tracker), rows_of(run)
    assert sent == line
    assert row["tune/miou"] == evaluation["tune/miou"] == metrics["miou"]
    assert row["tune/trimap_miou_3"] == evaluation["tune/trimap_miou_3"]
    assert row["tune/iou_per_class"].data == [list(p) for p in metrics["iou_per_class"].items()]
    assert len(row["crf/iterations"].data) == 3  # q_0 to q_2
    images = {key: value for key, value in row.items() if key.startswith("images/")}
    assert set(images) == {f"images/{name}" for name in dataset.names[:8]}
    first, sample = images[f"images/{dataset.names[0]}"], dataset[0]
    with torch.no_grad():
        output = segmenter.eval()(sample.image[None])
    expected = {"truth": sample.mask, "unary": output.unary.argmax(1)[0]}
    expected["crf"] = output.crf.argmax(1)[0]
    assert all(np.array_equal(first.masks[k]["mask_data"], v.numpy()) for k, v in expected.items())
    (artifact,), options = run.log_artifact.call_args
    assert options == {"aliases": ["best", "final"]}
    assert [entry.local_path for entry in artifact.manifest.entries.values()] == [str(checkpoint)]
    assert run.summary == result["scores"]


@pytest.mark.usefixtures("_no_key")
def test_wandb_itself_takes_all_of_it(tmp_path, monkeypatch, scored) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    segmenter, dataset, metrics = scored
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(b"weights")
    with RunTracker(tmp_path / "run", "auto", "group", "name", {}, tags=("tag",)) as tracker:
        tracker.log(1, {"loss": 1.0})
        tracker.log_evaluation(1, segmenter, dataset, metrics)
        tracker.log_checkpoint(checkpoint, ["best"])
        tracker.log_scores({"tune": metrics})
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert folder.name.endswith(tracker.run_id)
    assert len(list(folder.glob("files/media/images/images/*.png"))) == 8


def test_without_a_server_the_run_goes_offline_and_says_so(tmp_path, runs, monkeypatch) -> None:
    begin = wandb.init

    def unreachable(**options):
        if options["mode"] != "offline":
            raise wandb.errors.CommError("timed out\nin two lines")
        return begin(**options)

    monkeypatch.setattr(wandb, "init", unreachable)
    with (
        pytest.warns(RuntimeWarning, match=r"\(timed out\): logging offline.*`wandb sync .*run-\*"),
        RunTracker(tmp_path, "online", "group", "name", {}) as tracker,
    ):
        tracker.log(1, {"loss": 1.0})
    assert len(runs) == len(rows_of(runs[0])) == 1


@pytest.mark.usefixtures("_no_key")
def test_auto(monkeypatch) -> None:
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") is None
    assert wandb_mode("offline") == "offline"


@pytest.fixture
def make(tiny):
    """A segmenter of nine classes with a CRF of these changes."""

    def segmenter(**changes) -> Segmenter:
        config = CrfConfig(**asdict(tiny.crf), theta_alpha=6.0, theta_gamma=2.0)
        return Segmenter(SegmenterConfig(9, tiny.model.network, replace(config, **changes)))

    return segmenter


def test_scalars_are_the_parameters_in_pixels_of_the_image(make) -> None:
    segmenter = make(resolution=2, theta_beta=5.0, spatial_weight=2.0, output_scale=0.5)
    potentials = segmenter.crf.potentials
    with torch.no_grad():
        potentials.weight("spatial")[:3] = torch.tensor([-1.0, 2.0, 11.0])
        potentials.compatibility.matrix[0, 1] = 73.0  # 72 entries are off the diagonal
    values = crf_scalars(segmenter)
    expected = {
        **{"theta_alpha": 6.0, "theta_gamma": 2.0, "output_scale": 0.5},
        **{"spatial_weight_mean": (-1 + 2 + 11 + 6 * 2) / 9, "compatibility_off_diagonal": 2.0},
    }
    # float32, and theta through its logarithm
    assert {key: values[f"crf/{key}"] for key in expected} == pytest.approx(expected, rel=1e-6)
    for parameter in segmenter.crf.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    norms = {"kernel_weights": 2 * 18**0.5, "compatibility": 2 * 81**0.5, "scales": 2.0}
    named = {f"crf/gradient_norm/{part}": norm for part, norm in norms.items()}
    assert crf_gradient_norms(segmenter) == pytest.approx(named)


def test_the_trace_has_the_librarys_energies_per_pixel(make, tiny) -> None:
    segmenter = make(resolution=2, num_iterations_eval=3, output_scale=1.0)
    sample = data.build(tiny.data, "tune")[0]
    rows = iteration_trace(segmenter.train(), sample)
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    segmenter.eval()
    with torch.no_grad():
        image = sample.image[None].float()
        unary = shrink(segmenter.unary(image), 2)
        kernels = segmenter.crf.potentials.build_kernels(shrink_image(image, 2))
        q = segmenter.crf.infer(unary, kernels).softmax(1).flatten(2).mT
        (penalties,) = segmenter.crf.potentials.penalties(torch.float32)
        arguments = (q, unary.flatten(2).mT, kernels, penalties)
        pixels = unary[0, 0].numel()
        for key, energy in (("relaxed_energy", relaxed_energy), ("kl", free_energy)):
            # the same sums of 9 * 289 float32 terms in another order
            assert rows[-1][key] == pytest.approx(energy(*arguments).item() / pixels, rel=1e-4)
