"""The numbers of the networks, as the README shows them, and the race with torchvision's."""

from __future__ import annotations

import json

import pytest
import torch

from eval.__main__ import main
from eval.network_speed import NetworkSpeedOptions, ours, peer
from eval.network_table import markdown_table
from eval.networks import flops
from models.describe import shell


def test_flops_of_a_network_that_can_be_counted_by_hand() -> None:
    """VGG-16 with LargeFOV at 33 x 33 pixels: grids of 33, 17, 9 and 5, for good."""
    layers = [
        (33, 3, 64), (33, 64, 64), (17, 64, 128), (17, 128, 128), (9, 128, 256), (9, 256, 256),
        (9, 256, 256), *[(5, 256, 512)], *[(5, 512, 512)] * 5, (5, 512, 1024),
    ]  # fmt: skip
    multiplications = sum(side**2 * 9 * into * out for side, into, out in layers)
    multiplications += 5**2 * (1024 * 1024 + 1024 * 21)
    assert flops(shell("deeplab_v1_largefov"), 33) == 2 * multiplications


def test_the_command_writes_what_the_table_shows(tmp_path, capsys) -> None:
    out = tmp_path / "networks.json"
    name = "deeplab_v1_largefov"
    main(["networks", "--out", str(out), "--names", name, "--size", "33"])
    results = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert markdown_table(results) in printed
    row = results["networks"][0]
    assert (row["parameters"], row["receptive_field"]) == (20_505_429, 435)
    assert f"| `{name}` | 20,505,429 | {row['flops'] / 1e9:.1f} | 8 | 8 | 435 |" in printed
    with pytest.raises(SystemExit, match="unknown network 'deeplab'"):
        main(["networks", "--out", str(out), "--names", "deeplab"])


def test_both_racers_give_logits_of_the_image() -> None:
    image = torch.rand(1, 3, 33, 33) * 255
    with torch.inference_mode():
        assert ours()(image).shape == peer()(image).shape == (1, 21, 33, 33)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        NetworkSpeedOptions(repeats=0)


def test_the_race_is_printed_and_written(tmp_path, capsys, monkeypatch) -> None:
    for name in ("ours", "peer"):
        monkeypatch.setattr(f"eval.network_speed.{name}", lambda: torch.exp)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    out = tmp_path / "speed.json"
    main(["benchmark", "models", "--out", str(out), "--repeats", "3", "--size", "9"])
    results = json.loads(out.read_text())
    assert [len(values) for values in results["seconds"].values()] == [3, 3]
    assert f"in the same round: {results['ratio']:.3f}" in capsys.readouterr().out
