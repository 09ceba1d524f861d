"""The benchmark of the networks: rows of every task, limits that are said, and the table."""

from __future__ import annotations

import json
import sys
import time

import pytest
import torch

from eval.__main__ import main
from eval.benchmark.builder import Work, measure_builder, timed, training_step
from eval.benchmark.builders import BuildersOptions, benchmark_builders, measured_apart
from eval.benchmark.builders_table import markdown_block, markdown_table
from eval.readme import block_of
from models import CrfConfig, Segmenter, SegmenterConfig, builder

TINY = "deeplab_v3plus_mobilenetv2"
WORK = Work(TINY, size=65, repeats=1, seconds=1e-9, threads=1, device="cpu")
COUNTS = sys.platform.startswith("linux")


def test_every_task_is_measured_without_and_with_the_crf() -> None:
    rows = list(measure_builder(WORK))
    assert [(row["task"], row["crf"]) for row in rows] == [
        ("inference", False),
        ("training", False),
        ("inference", True),
        ("training", True),
    ]
    assert all(len(row["seconds"]) == 1 and row["seconds"][0] > 0 for row in rows)


@pytest.mark.skipif(not COUNTS, reason="only Linux counts and resets the peak of a process")
def test_training_takes_more_memory_than_inference_and_all_more_than_the_weights() -> None:
    rows = measured_apart(WORK, limit=120)
    inference, training = (row["peak_bytes"] for row in rows[:2])
    weights = 4 * 2_700_000  # parameters of this network, float32
    # Training holds weights, gradients and momentum.
    assert training > inference > weights
    assert training > 3 * weights


@pytest.mark.parametrize("name", ["deeplab_v1_largefov_msc", "deeplab_v2_resnet101_aspp_l_msc"])
@pytest.mark.slow
def test_networks_with_branches_and_scales_train(name: str) -> None:
    work = Work(name, size=65, repeats=1, seconds=1e-9, threads=1, device="cpu")
    assert len(list(measure_builder(work))) == 4


def test_a_training_step_moves_network_and_crf() -> None:
    torch.manual_seed(0)
    config = SegmenterConfig(21, builder(TINY).config, CrfConfig(), freeze_batch_norm=True)
    segmenter = Segmenter(config).train()
    before = {k: v.clone() for k, v in segmenter.named_parameters()}
    image, labels = 255 * torch.rand(1, 3, 65, 65), torch.randint(0, 21, (1, 65, 65))
    training_step(segmenter, image, labels)()
    learns = {k for k, v in segmenter.named_parameters() if v.grad is not None}
    assert any(name.startswith("crf.") for name in learns)
    assert any(not torch.equal(before[k], v) for k, v in segmenter.named_parameters())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_network_computes_in_the_precision_asked_for(precision: torch.dtype) -> None:
    segmenter = Segmenter(SegmenterConfig(21, builder(TINY).config, None, freeze_batch_norm=True))
    found: list[torch.dtype] = []
    network = segmenter.train().network
    network.register_forward_hook(lambda module, inputs, output: found.append(output.dtype))
    image, labels = 255 * torch.rand(1, 3, 65, 65), torch.randint(0, 21, (1, 65, 65))
    training_step(segmenter, image, labels, precision)()
    assert found == [precision]


def test_the_first_round_counts_only_where_it_is_the_only_one(monkeypatch) -> None:
    ticks = iter([0.0, 0.3, 0.3, 0.5, 0.5, 0.7, 0.0, 9.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    quick = Work(TINY, size=65, repeats=2, seconds=1.0, threads=1, device="cpu")
    cpu = torch.device("cpu")
    assert timed(lambda: None, quick, cpu) == pytest.approx([0.2, 0.2])
    assert timed(lambda: None, quick, cpu) == [9.0]


def test_a_network_over_its_limit_is_said_and_left_out(tmp_path, capsys) -> None:
    options = BuildersOptions(tmp_path / "builders.json", names=(TINY,), size=65, limit=0.01)
    results = benchmark_builders(options)
    assert (results["rows"], results["late"]) == ([], {TINY: 4})
    assert f"{TINY}: 4 of 4 tasks left out after 0.01 s" in capsys.readouterr().err
    assert f"| `{TINY}` | – | – | – | – |" in markdown_table(results)
    assert f"- tasks left out after 0.01 s for a network: `{TINY}` 4" in markdown_block(results)


def test_a_network_that_fails_is_an_error_in_words() -> None:
    bad = Work(TINY, size=65, repeats=1, seconds=1.0, threads=0, device="cpu")  # no thread
    with pytest.raises(ChildProcessError, match=f"measuring {TINY} ended with status 1 after 0 of"):
        measured_apart(bad, limit=60)


@pytest.mark.slow
def test_the_command_writes_what_the_table_shows(tmp_path, capsys) -> None:
    out = tmp_path / "builders.json"
    words = f"benchmark builders --out {out} --names {TINY} --size 65 --seconds 0.1 --limit 120"
    main(words.split())
    results = json.loads(out.read_text())
    assert block_of(results) in capsys.readouterr().out
    assert len(results["rows"]) == 4
    assert f"| `{TINY}` | " in markdown_table(results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size must be at least 33, got 8"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"limit": 0.0}, "limit must be above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BuildersOptions(tmp_path / "b.json", **options)


def test_an_unknown_network_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown network 'deeplab'"):
        benchmark_builders(BuildersOptions(tmp_path / "b.json", names=("deeplab",)))
