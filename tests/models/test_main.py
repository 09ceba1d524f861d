"""`python -m models`: the list, one network in full, and words that are not understood."""

from __future__ import annotations

import re

import pytest

from models import BUILDERS
from models.__main__ import main
from models.describe import convolutions, shell

SOME = ("deeplab_v1_largefov", "deeplab_v3_mobilenetv2_os8")


def table(text: str) -> dict[str, list[str]]:
    """The cells of each printed row by those of its first column."""
    rows = [re.split(r"\s*[│┃|]\s*", line) for line in text.splitlines()]
    return {row[1].strip(): [cell.strip() for cell in row[2:]] for row in rows if len(row) > 3}


def test_nearest_names_and_help(capsys) -> None:
    with pytest.raises(SystemExit, match="deeplab_v3_resnet101"):
        main(["describe", "deeplab_v3_resnet11"])
    with pytest.raises(SystemExit, match="describe NAME"):
        main(["lst"])
    main([])
    assert "describe NAME" in capsys.readouterr().out


def test_list_shows_name_parameters_output_stride_and_recipe(monkeypatch, capsys) -> None:
    monkeypatch.setattr("models.describe.BUILDERS", {name: BUILDERS[name] for name in SOME})
    main(["list"])
    found = table(capsys.readouterr().out)
    assert [found[name][:2] for name in SOME] == [["20,505,429", "8"], ["2,113,557", "8"]]


def test_describe_shows_stride_and_dilation_of_every_convolution(capsys) -> None:
    main(["describe", "deeplab_v2_vgg16_aspp_s"])
    shown = table(capsys.readouterr().out)
    layers = convolutions(shell("deeplab_v2_vgg16_aspp_s"))
    assert len(layers) == 13 + 4 * 3
    for name, layer in layers:
        kernel = "{}x{}".format(*layer.kernel_size)
        assert shown[name][:3] == [kernel, str(layer.stride[0]), str(layer.dilation[0])]
    assert shown["backbone.rates"][0] == "(2, 4, 8, 12)"
