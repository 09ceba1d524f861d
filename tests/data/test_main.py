from __future__ import annotations

import pytest
from PIL import Image

from data.__main__ import main


def test_show_collage(tmp_path, capsys):
    out = tmp_path / "new" / "sheet.png"
    arguments = f"show collage --out {out} --count 4 --cell 40 --data.size 32 --data.num-train 3"
    assert main(arguments.split()) == 0
    with Image.open(out) as picture:
        assert picture.size == (3 * 84 + 4, 48)
    assert "wrote" in capsys.readouterr().out


def test_show_voc(tmp_path, tiny_voc):
    out = tmp_path / "sheet.png"
    arguments = ["show", "voc", "--out", str(out), "--data.root", str(tiny_voc.root)]
    assert main([*arguments, "--split", "tune"]) == 0
    assert out.is_file()


def test_verify(tiny_voc, capsys):
    assert main(["verify", "voc", "--data.root", str(tiny_voc.root)]) == 0
    printed = capsys.readouterr().out
    assert "2 images" in printed
    assert "cat" in printed


def test_a_missing_root_ends_with_its_message(tmp_path, capsys):
    arguments = ["verify", "voc", "--data.root", str(tmp_path / "nowhere")]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: the data root")
    assert "--data.root" in message


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["show", "collage", "--out", "x.png", "--data.sizes", "3"])
    assert caught.value.code == 2
    assert "--data.size" in capsys.readouterr().err
