"""`python -m models`: the list, one network in full, and words that are not understood."""

from __future__ import annotations

import re

import pytest

from models import BUILDERS
from models.__main__ import main
from models.describe import convolutions, shell

SOME = ("deeplab_v1_largefov", "deeplab_v3_mobilenetv2_os8")


def test_list_shows_name_parameters_output_stride_and_recipe(monkeypatch, capsys) -> None:
    monkeypatch.setattr("models.describe.BUILDERS", {name: BUILDERS[name] for name in SOME})
    main(["list"])
    rows = [re.split(r"\s*[│┃|]\s*", line) for line in capsys.readouterr().out.splitlines()]
    found = {row[1]: row[2:5] for row in rows if len(row) > 4 and row[1] in SOME}
    assert found["deeplab_v1_largefov"][:2] == ["20,505,429", "8"]
    assert found["deeplab_v1_largefov"][2].startswith("crop 321, batch 20, 6k steps, lr 0.001")
    assert found["deeplab_v3_mobilenetv2_os8"][:2] == ["2,113,557", "8"]


def test_describe_shows_stride_and_dilation_of_every_convolution(capsys) -> None:
    main(["describe", "deeplab_v2_vgg16_aspp_s"])
    lines = capsys.readouterr().out.splitlines()
    shown = {}
    for line in lines:
        cells = [cell.strip() for cell in re.split("[│┃|]", line)]
        if len(cells) > 5:
            shown[cells[1]] = cells[2:6]
    layers = convolutions(shell("deeplab_v2_vgg16_aspp_s"))
    assert len(layers) == 13 + 4 * 3
    for name, layer in layers:
        height, width = layer.kernel_size
        numbers = [str(layer.stride[0]), str(layer.dilation[0])]
        assert shown[name][:3] == [f"{height}x{width}", *numbers]
    assert any("backbone.rates" in line and "(2, 4, 8, 12)" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "deeplab_v3_resnet11"], "Nearest names: deeplab_v3_resnet101"),
        (["describe"], "expected `list` or `describe NAME`"),
        (["lst"], r"expected `list` or `describe NAME`, got \['lst'\]"),
    ],
)
def test_bad_words(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(arguments)


def test_usage(capsys) -> None:
    main([])
    assert "python -m models describe NAME" in capsys.readouterr().out
