"""Where the numbers go: JSON lines, offline W&B files read back, and which mode "auto" means."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

import data
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from eval.provenance import git
from models import CrfConfig, Segmenter, SegmenterConfig
from tests.train.offline_files import finished_runs
from train.media import heat_maps
from train.offline_run import history_row, read_offline_run, records
from train.tracker import NoTracker
from train.tracking import RunTracker
from train.wandb_run import wandb_mode


def lines_of(tracker: RunTracker) -> list[dict[str, Any]]:
    return [json.loads(line) for line in tracker.path.read_text().splitlines()]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A W&B that writes nothing outside of the test's folder."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no .netrc
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "run"


@pytest.fixture
def scored(tiny):
    """(segmenter with a matrix CRF, the tune split, its scores)."""
    dataset = data.build(replace(tiny.data, num_tune=10), "tune")
    form = replace(tiny.crf, kernel_weights="matrix", resolution=2)
    crf = CrfConfig(**asdict(form), theta_alpha=6.0)
    torch.manual_seed(0)
    segmenter = Segmenter(SegmenterConfig(len(dataset.classes), tiny.model.network, crf)).eval()
    counts = evaluate(segmenter, dataset, coarse_unaries(segmenter, dataset))
    return segmenter, dataset, scores(counts)


def test_json_lines_and_rewind(tmp_path) -> None:
    with RunTracker(tmp_path, "disabled", "group", "name", {}) as tracker:
        for step in (1, 2, 3):
            tracker.log(step, {"loss": 1.0 / step})
        tracker.rewind(2)
        tracker.log(3, {"loss": 0.25})
    assert [line["loss"] for line in lines_of(tracker)] == [1.0, 0.5, 0.25]


def test_a_line_that_was_cut_off_is_forgotten(tmp_path) -> None:
    with RunTracker(tmp_path, "disabled", "group", "name", {}) as tracker:
        tracker.log(1, {"loss": 1.0})
        with tracker.path.open("a") as file:
            file.write('{"step": 2, "lo')  # killed here
        tracker.rewind(2)
        tracker.log(2, {"loss": 0.5})
    assert lines_of(tracker) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]


def test_a_resumed_arm_is_one_run(tmp_path) -> None:
    ids = []
    for given in (None, None, "fedcba98", None):
        with RunTracker(tmp_path, "disabled", "group", "name", {}, run_id=given):
            ids.append((tmp_path / "wandb_id.txt").read_text())
    assert ids[0] == ids[1]
    assert ids[2:] == ["fedcba98", "fedcba98"]


def test_a_result_is_written_once(tmp_path, scored) -> None:
    """A run that was cut off between its result and the end writes the result again."""
    _, _, metrics = scored
    with RunTracker(tmp_path, "disabled", "group", "name", {}) as tracker:
        tracker.log(1, {"loss": 1.0})
        for _ in range(2):
            tracker.log_scores({"tune": metrics})
    lines = [json.loads(line) for line in tracker.path.read_text().splitlines()]
    assert [sorted(line) for line in lines] == [["loss", "step"], ["scores"]]


def test_the_offline_file_holds_what_was_logged(offline, scored) -> None:
    segmenter, dataset, metrics = scored
    config = {"recipe": "collage", "fit": {"lr": 0.1}}
    checkpoint = offline.parent / "checkpoint.pt"
    checkpoint.write_bytes(b"weights")
    tags = ("collage", "joint")
    with RunTracker(offline, "offline", "a group", "joint-seed0", config, tags=tags) as tracker:
        for step in range(1, 300):  # beyond a block of the file
            tracker.log(step, {"loss": 1 / step, "lr/backbone_weights": 0.1})
        modes = [module.training for module in segmenter.train().modules()]
        tracker.log_evaluation(299, segmenter, dataset, metrics)
        assert modes == [module.training for module in segmenter.modules()]
        tracker.log_checkpoint(checkpoint, ["best", "final"])
        tracker.log_scores({"tune": metrics, "report": metrics})
        tracker.log_images(segmenter, dataset)
        assert tracker.run_id == (offline / "wandb_id.txt").read_text()

    (found,) = finished_runs(offline)
    assert (found.run_id, found.group, found.name) == (tracker.run_id, "a group", "joint-seed0")
    assert (found.rows, found.last_step, found.uploaded) == (302, 299, False)
    read = list(records(found.path / f"run-{found.run_id}.wandb"))
    rows = [history_row(record) for record in read if record.HasField("history")]

    (run,) = (record.run for record in read if record.HasField("run"))
    kept = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {key: kept[key] for key in config} == config
    assert kept["commit"] == (git("rev-parse", "--short=12", "HEAD") or "unknown")
    assert isinstance(kept["dirty"], bool)
    assert list(run.tags) == ["collage", "joint"]

    # the same numbers as in the JSON lines, step by step
    lines = lines_of(tracker)
    for line, row in zip(lines[:299], rows, strict=False):
        assert {key: row[key] for key in line} == line
    evaluation, last = lines[299], rows[299]
    for key in ("step", "tune/miou", "tune/pixel_accuracy", "tune/trimap_miou_3"):
        assert last[key] == evaluation[key]
    assert evaluation["tune/miou"] == metrics["miou"]

    def table(value: dict[str, Any]) -> list[list[Any]]:
        contents = json.loads((found.path / "files" / value["path"]).read_text())
        return [contents["columns"], *contents["data"]]

    ious = table(last["tune/iou_per_class"])
    assert ious == [["class", "iou"], *(list(pair) for pair in metrics["iou_per_class"].items())]
    iterations = table(last["crf/iterations"])
    assert iterations[0] == list(evaluation["crf/iterations"][0])
    assert iterations[1:] == [list(row.values()) for row in evaluation["crf/iterations"]]
    assert len(iterations) == 1 + 3  # q_0 to q_2

    # eight images with three masks each, at their own size
    images = {key: value for key, value in last.items() if key.startswith("images/")}
    assert set(images) == {f"images/{name}" for name in dataset.names[:8]}
    first, sample = images[f"images/{dataset.names[0]}"], dataset[0]
    with Image.open(found.path / "files" / first["path"]) as picture:
        assert np.array_equal(np.asarray(picture), sample.image.permute(1, 2, 0).numpy())
    assert set(first["masks"]) == {"truth", "unary", "crf"}
    with Image.open(found.path / "files" / first["masks"]["truth"]["path"]) as mask:
        assert np.array_equal(np.asarray(mask), sample.mask.numpy())
    for key in ("compatibility_map", "spatial_weight_map", "bilateral_weight_map"):
        with Image.open(found.path / "files" / last[f"crf/{key}"]["path"]) as heat_map:
            assert heat_map.size[0] > 100

    (artifact,) = (
        r.artifact for r in read if r.HasField("artifact") and r.artifact.type == "model"
    )
    assert artifact.name == "a-group-joint-seed0"
    assert {"best", "final"} <= set(artifact.aliases)
    assert [Path(entry.local_path) for entry in artifact.manifest.contents] == [checkpoint]
    summary = {i.key for r in read if r.HasField("summary") for i in r.summary.update}
    assert {"tune/miou", "report/miou", "report/trimap_miou_1"} <= summary
    assert [record.metric.step_metric for record in read if record.HasField("metric")] == [
        "",
        "step",
    ]


def test_a_file_whose_writer_died_is_read_up_to_there(offline) -> None:
    with RunTracker(offline, "offline", "group", "name", {}) as tracker:
        for step in (1, 2, 3):
            tracker.log(step, {"loss": 1 / step})
    (found,) = finished_runs(offline)
    (path,) = found.path.glob("*.wandb")
    whole = path.read_bytes()
    kept = []
    for length in [*range(7, len(whole), 41), len(whole)]:
        path.write_bytes(whole[:length])
        kept.append(read_offline_run(found.path).rows)
    assert kept == sorted(kept)
    assert set(kept) == {0, 1, 2, 3}


def test_records_cross_the_blocks_of_a_file(tmp_path) -> None:
    # A block of 32768 bytes, its 7 of the header apart, is filled up to 3 bytes, too few for a
    # chunk's head; the record after it takes two blocks.
    def chunk(kind: int, part: bytes) -> bytes:
        return bytes(4) + len(part).to_bytes(2, "little") + bytes([kind]) + part

    def record(length: int) -> bytes:
        return bytes(Record(uuid="u" * (length - 5)).SerializeToString())

    first, second = record(32768 - 7 - 7 - 3), record(40000)
    path = tmp_path / "run-1.wandb"
    parts = [chunk(1, first), bytes(3), chunk(2, second[:32761]), chunk(4, second[32761:])]
    path.write_bytes(b":W&B" + bytes(3) + b"".join(parts))
    assert [read.SerializeToString() for read in records(path)] == [first, second]


def test_a_damaged_record_is_named(offline) -> None:
    with RunTracker(offline, "offline", "group", "name", {}) as tracker:
        tracker.log(1, {"loss": 1.0})
    (found,) = finished_runs(offline)
    (path,) = found.path.glob("*.wandb")
    damaged = bytearray(path.read_bytes())
    damaged[14:20] = b"\xff" * 6
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"\.wandb is damaged"):
        read_offline_run(found.path)


def test_a_weight_matrix_is_drawn_kernel_by_kernel(tiny) -> None:
    crf = CrfConfig(kernel_weights="class", theta_context=20.0)
    segmenter = Segmenter(SegmenterConfig(3, tiny.model.network, crf))
    drawn = [key for key, _ in heat_maps(segmenter, ("a", "b", "c"))]
    assert drawn == ["crf/compatibility_map", "crf/context_weight_map"]


def test_what_is_no_file_of_a_run(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"holds no \.wandb file: delete it"):
        read_offline_run(tmp_path)
    (tmp_path / "run-1.wandb").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is no W&B file: expected it to begin with"):
        read_offline_run(tmp_path)


def test_steps_taken_again_offline_are_kept_in_one_run(offline) -> None:
    ids = set()
    for first, steps in ((1, 4), (3, 5)):  # stopped after step 4, its checkpoint is of step 2
        with RunTracker(offline, "offline", "group", "name", {}) as tracker:
            tracker.rewind(first - 1)
            for step in range(first, steps + 1):
                tracker.log(step, {"loss": 1 / step})
            ids.add(tracker.run_id)
    found = finished_runs(offline)
    assert {run.run_id for run in found} == ids
    assert [(run.rows, run.last_step) for run in found] == [(4, 4), (3, 5)]
    rows = [
        history_row(record)
        for run in found
        for record in records(next(run.path.glob("*.wandb")))
        if record.HasField("history")
    ]
    assert [(row["step"], row["loss"]) for row in rows] == [
        (step, 1 / step) for step in (1, 2, 3, 4, 3, 4, 5)
    ]
    assert [line["step"] for line in lines_of(tracker)] == [1, 2, 3, 4, 5]


def test_without_a_server_the_run_goes_offline_and_says_so(offline, monkeypatch) -> None:
    original = wandb.init

    def unreachable(*arguments, **options):
        if options["mode"] != "offline":
            raise wandb.errors.CommError("timed out\nin two lines")
        return original(*arguments, **options)

    monkeypatch.setattr(wandb, "init", unreachable)
    with (
        pytest.warns(RuntimeWarning, match=r"\(timed out\): logging offline.*train sync RUN"),
        RunTracker(offline, "online", "group", "name", {}) as tracker,
    ):
        tracker.log(1, {"loss": 1.0})
    (found,) = finished_runs(offline)
    assert found.rows == 1


def test_media_are_left_out_where_wandb_is_disabled(tmp_path, scored, monkeypatch) -> None:
    segmenter, dataset, metrics = scored
    monkeypatch.setattr(wandb, "Image", None)
    with RunTracker(tmp_path, "disabled", "group", "name", {}) as tracker:
        tracker.log_evaluation(1, segmenter, dataset, metrics)
        tracker.log_scores({"tune": metrics})
        tracker.log_images(segmenter, dataset)
    evaluation, scores, iterations = lines_of(tracker)
    assert iterations["crf/iterations"] == evaluation["crf/iterations"]
    assert evaluation["tune/iou_per_class"] == metrics["iou_per_class"]
    assert scores["scores"]["tune/miou"] == metrics["miou"]


def test_a_checkpoint_that_is_not_there(tmp_path) -> None:
    with (
        RunTracker(tmp_path, "disabled", "group", "name", {}) as tracker,
        pytest.raises(FileNotFoundError, match=r"no checkpoint at .*absent\.pt: save it before"),
    ):
        tracker.log_checkpoint(tmp_path / "absent.pt", ["best"])


def test_other_processes_write_nothing(tmp_path, scored, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    segmenter, dataset, metrics = scored
    with NoTracker() as tracker:
        tracker.rewind(0)
        tracker.log(1, {"loss": 1.0})
        tracker.log_evaluation(1, segmenter, dataset, metrics)
        tracker.log_scores({"tune": metrics})
        tracker.log_images(segmenter, dataset)
        tracker.log_checkpoint(tmp_path / "absent.pt", ["best"])
    assert tracker.run_id is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "offline"), ({"WANDB_API_KEY": "k"}, "online"), ({"WANDB_MODE": "disabled"}, None)],
)
def test_auto(monkeypatch, tmp_path, environment, expected) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode("auto") == expected
    assert wandb_mode("offline") == "offline"
