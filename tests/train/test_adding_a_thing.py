"""CONTRIBUTING's "Add a thing": one of each, the public way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from data.dataset import LabelSet, Split, label_set_of
from data.kinds import KINDS as DATA_SETS
from data.paired import Layout, Pair, RootedConfig, label_table
from models import Network, load_backbone_weights, register
from models.registry import KINDS, NETWORKS
from runtime.checkpoint import load_segmenter, read_checkpoint
from tests.train.world import lines_of, tiny_recipe
from train.__main__ import main
from train.ablate.ablation import ABLATIONS, Ablation
from train.losses import LossConfig, Target, term
from train.recipe import Recipe
from train.recipes import RECIPES


@dataclass(frozen=True)
class NarrowConfig:
    kind: Literal["narrow"] = field(default="narrow", init=False)
    channels: int = 4


class Narrow(Network):
    def __init__(self, num_classes: int, config: NarrowConfig) -> None:
        super().__init__("half", output_stride=4)
        self.layers = nn.Sequential(
            nn.Conv2d(3, config.channels, 3, stride=4, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.channels, num_classes, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(self.prepare(image))  # type: ignore[no-any-return]


def dice_term(logits: Tensor, target: Target, config: LossConfig) -> Tensor:
    q, labelled = logits.softmax(1), target.labels < logits.shape[1]
    right = q.gather(1, target.labels.where(labelled, 0)[:, None])[:, 0]
    return 1 - (right * labelled).sum() / labelled.sum()


@dataclass(frozen=True)
class DiceConfig(LossConfig):
    dice: float = term(1.0, dice_term)


@dataclass(frozen=True)
class HalvesConfig(RootedConfig):
    kind: ClassVar[str] = "halves"

    def label_set(self) -> LabelSet:
        return label_set_of(("left", "right"))

    def layout(self, split: Split) -> Layout:
        names = [f"{split}{number}" for number in range(4)]
        files = [(self.root / f"{n}.png", self.root / f"{n}_mask.png") for n in names]
        pairs = tuple(Pair(n, *f) for n, f in zip(names, files, strict=True))
        return Layout(pairs=pairs, source="four pictures", table=label_table(2))


def halves(root: Path) -> Path:
    for name in (f"{split}{k}" for split in ("train", "tune", "report") for k in range(4)):
        mask = np.repeat([0, 1], 16).astype(np.uint8)[None].repeat(32, axis=0)
        Image.fromarray(np.stack([200 * mask] * 3, axis=2)).save(root / f"{name}.png")
        Image.fromarray(mask).save(root / f"{name}_mask.png")
    return root


def test_a_network_a_loss_a_data_set_a_recipe_and_an_ablation(tmp_path, monkeypatch, capsys):
    root = halves(tmp_path)

    def mine() -> Recipe:
        tiny = tiny_recipe()
        model = replace(tiny.model, network=NarrowConfig())  # type: ignore[arg-type]
        loss = DiceConfig(cross_entropy=0.0)
        start, fit = replace(tiny.fit, loss=loss), replace(tiny.fit, loss=loss, steps=2)
        return replace(
            tiny, data=HalvesConfig(root=root), model=model, start=start, fit=fit, seeds=(0,)
        )

    monkeypatch.setitem(KINDS, "narrow", NarrowConfig)  # so that it is undone
    monkeypatch.setitem(NETWORKS, NarrowConfig, Narrow)
    register(NarrowConfig, Narrow)
    monkeypatch.setitem(DATA_SETS, "halves", HalvesConfig)
    monkeypatch.setitem(RECIPES, "mine", mine)
    wide = Ablation("wide", "Wider?", {"4": {}, "8": {"model.network.channels": 8}}, ("unary",))
    monkeypatch.setitem(ABLATIONS, "wide", wide)

    out = tmp_path / "run"
    options = ["--model.network.channels", "5", "--fit.loss.dice", "2"]
    main(["run", "mine", "--arm", "joint", "--out", str(out), *options])
    arm = out / "arms" / "joint-seed0"
    network = load_segmenter(read_checkpoint(arm / "checkpoint.pt")).network
    assert isinstance(network, Narrow)
    assert network.layers[0].out_channels == 5
    assert next(line for line in lines_of(arm) if "loss" in line)["loss"] < 2.0  # 2 x at most 1
    with pytest.raises(ValueError, match="Narrow has no backbone to load"):
        network.load_backbone({})
    with pytest.raises(FileNotFoundError):
        load_backbone_weights(network, tmp_path / "absent.safetensors")
    capsys.readouterr()
    main(["ablate", "wide", "--recipe", "mine", "--out", str(tmp_path / "wide")])
    assert "8" in (tmp_path / "wide" / "wide" / "results.md").read_text()
