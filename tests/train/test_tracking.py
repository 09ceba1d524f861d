"""Where the numbers go: JSON lines, Weights & Biases, and which mode "auto" means."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
import wandb

import data
from data import CollageConfig
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from models import CrfConfig, Segmenter, SegmenterConfig
from runtime.provenance import git
from tests.train.tiny import tiny_recipe
from train.tracking import RunTracker, heat_maps, wandb_mode


class RecordedRun:
    """Stands in for a W&B run, and remembers what it is told."""

    disabled = False

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.id = options["id"]
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.artifacts: list[tuple[wandb.Artifact, list[str]]] = []
        self.metrics: dict[str, str | None] = {}
        self.exit_code: int | None = None

    def define_metric(self, name: str, step_metric: str | None = None, **_: Any) -> None:
        self.metrics[name] = step_metric

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def log_artifact(self, artifact: wandb.Artifact, aliases: list[str]) -> None:
        self.artifacts.append((artifact, aliases))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class RecordedImage:
    """Stands in for a picture of W&B."""

    def __init__(self, picture: Any, masks: Any = None, caption: str = "") -> None:
        self.picture, self.masks = picture, masks


@pytest.fixture
def runs(monkeypatch) -> list[RecordedRun]:
    """The runs that are begun in this test, instead of W&B's own."""
    begun: list[RecordedRun] = []

    def init(**options: Any) -> RecordedRun:
        begun.append(RecordedRun(options))
        return begun[-1]

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "Image", RecordedImage)
    return begun


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
    """Also where the end of a line was cut off, or the end of the run after its result."""
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
        assert run.metrics == {"step": None, "*": "step"}
    assert [row["step"] for row in runs[1].rows] == [3, 4, 5]
    assert [line["step"] for line in lines_of(tracker)] == [1, 2, 3, 4, 5]


def test_wandb_gets_the_numbers_of_the_lines_with_tables_and_pictures(
    tmp_path, runs, scored
) -> None:
    segmenter, dataset, metrics = scored
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(b"weights")
    config, tags = {"recipe": "collage", "fit": {"lr": 0.1}}, ("collage", "joint")
    out = tmp_path / "run"
    with RunTracker(out, "offline", "a group", "joint-seed0", config, tags=tags) as tracker:
        for step in (1, 2):
            tracker.log(step, {"loss": 1 / step})
        segmenter.train().network.eval()  # as a frozen network
        modes = [module.training for module in segmenter.modules()]
        tracker.log_evaluation(2, segmenter, dataset, metrics)
        assert modes == [module.training for module in segmenter.modules()]
        tracker.log_checkpoint(checkpoint, ["best", "final"])
        tracker.log_scores({"tune": metrics, "report": metrics})
        tracker.log_images(segmenter, dataset)

    (run,) = runs
    sent = dict(run.options["config"])
    assert isinstance(sent.pop("dirty"), bool)
    assert sent == {**config, "commit": git("rev-parse", "--short=12", "HEAD") or "unknown"}
    options = [run.options[name] for name in ("group", "name", "tags", "mode", "dir")]
    assert options == ["a group", "joint-seed0", list(tags), "offline", str(out)]
    assert run.exit_code == 0

    lines = lines_of(tracker)
    assert run.rows[:2] == lines[:2]
    evaluation, row = lines[2], run.rows[2]
    for key in ("step", "tune/miou", "tune/pixel_accuracy", "tune/trimap_miou_3"):
        assert row[key] == evaluation[key]
    assert evaluation["tune/miou"] == metrics["miou"]
    scores_of, iterations = row["tune/iou_per_class"], row["crf/iterations"]
    assert scores_of.columns == ["class", "iou"]
    assert scores_of.data == [list(pair) for pair in metrics["iou_per_class"].items()]
    assert iterations.columns == list(evaluation["crf/iterations"][0])
    assert iterations.data == [list(values.values()) for values in evaluation["crf/iterations"]]
    assert len(iterations.data) == 3  # q_0 to q_2

    # eight images with three masks each, at their own size
    images = {key: value for key, value in row.items() if key.startswith("images/")}
    assert set(images) == {f"images/{name}" for name in dataset.names[:8]}
    first, sample = images[f"images/{dataset.names[0]}"], dataset[0]
    with torch.no_grad():
        output = segmenter.eval()(sample.image[None])
    expected = {"truth": sample.mask}
    expected |= {"unary": output.unary.argmax(1)[0], "crf": output.crf.argmax(1)[0]}
    assert np.array_equal(first.picture, sample.image.permute(1, 2, 0).numpy())
    assert all(np.array_equal(first.masks[k]["mask_data"], v.numpy()) for k, v in expected.items())
    maps = {f"crf/{key}_map" for key in ("compatibility", "spatial_weight", "bilateral_weight")}
    assert maps < row.keys()
    assert run.rows[4].keys() == row.keys() - evaluation.keys() | {"crf/iterations"}

    ((artifact, aliases),) = run.artifacts
    assert (artifact.name, artifact.type) == ("a-group-joint-seed0", "model")
    assert aliases == ["best", "final"]
    assert [entry.local_path for entry in artifact.manifest.entries.values()] == [str(checkpoint)]
    assert run.summary == lines[3]["scores"]
    assert {"tune/miou", "report/miou", "report/trimap_miou_1"} <= run.summary.keys()


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


def test_a_weight_matrix_is_drawn_kernel_by_kernel(tiny) -> None:
    crf = CrfConfig(kernel_weights="class", theta_context=20.0)
    segmenter = Segmenter(SegmenterConfig(3, tiny.model.network, crf))
    drawn = [key for key, _ in heat_maps(segmenter, ("a", "b", "c"))]
    assert drawn == ["crf/compatibility_map", "crf/context_weight_map"]


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
    assert len(runs) == len(runs[0].rows) == 1


def test_media_are_left_out_where_wandb_is_disabled(tmp_path, scored, monkeypatch) -> None:
    segmenter, dataset, metrics = scored
    monkeypatch.setattr(wandb, "Image", None)
    with RunTracker(tmp_path, "disabled", "group", "name", {}) as tracker:
        tracker.log_evaluation(1, segmenter, dataset, metrics)
        tracker.log_scores({"tune": metrics})
        tracker.log_images(segmenter, dataset)
        with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*absent\.pt"):
            tracker.log_checkpoint(tmp_path / "absent.pt", ["best"])
    evaluation, result, iterations = lines_of(tracker)
    assert iterations["crf/iterations"] == evaluation["crf/iterations"]
    assert evaluation["tune/iou_per_class"] == metrics["iou_per_class"]
    assert result["scores"]["tune/miou"] == metrics["miou"]


@pytest.mark.usefixtures("_no_key")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "offline"), ({"WANDB_API_KEY": "k"}, "online"), ({"WANDB_MODE": "disabled"}, None)],
)
def test_auto(monkeypatch, environment, expected) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode("auto") == expected
    assert wandb_mode("offline") == "offline"
