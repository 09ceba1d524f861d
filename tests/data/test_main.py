from __future__ import annotations

import json

import pytest
from PIL import Image

from data.__main__ import main
from tests.data.layouts import (
    as_nobody,
    truncate,
    write_camvid,
    write_cityscapes,
    write_coco,
    write_folder,
    write_pascal_context,
    write_person_part,
)

LAYOUTS = {
    "camvid": write_camvid,
    "cityscapes": write_cityscapes,
    "coco": write_coco,
    "folder": write_folder,
    "pascal-context": write_pascal_context,
    "person-part": write_person_part,
}


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


def test_show_every_layout(tmp_path):
    for name, write in LAYOUTS.items():
        write(tmp_path / name)
        out = tmp_path / f"{name}.png"
        assert main(["show", name, str(tmp_path / name), "--out", str(out)]) == 0
        assert out.is_file()


def test_verify_takes_the_root_in_two_ways(tmp_path, capsys):
    write_folder(tmp_path)
    for root in ([str(tmp_path)], ["--data.root", str(tmp_path)]):
        assert main(["verify", "folder", *root]) == 0
        printed = capsys.readouterr().out
        assert "tree" in printed
        assert "every file is well formed" in printed


def test_verify_ends_with_1_where_anything_is_wrong(tmp_path, capsys):
    write_folder(tmp_path)
    for mask in (tmp_path / "masks").iterdir():
        truncate(mask)
    out = tmp_path / "reports" / "report.json"
    arguments = ["verify", "folder", str(tmp_path), "--out", str(out), "--limit", "2"]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert printed.count("cannot be decoded") == 2 * 3
    assert "more; --out FILE.json lists all" in printed
    splits = json.loads(out.read_text())["splits"]
    assert sum(len(split["problems"]) for split in splits) == 40


def test_verify_of_one_split(tmp_path, capsys):
    write_folder(tmp_path)
    assert main(["verify", "folder", str(tmp_path), "--split", "tune", "--no-images"]) == 0
    printed = capsys.readouterr().out
    assert "tune: 8 images" in printed
    assert "train:" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verifi", "voc"], "did you mean 'verify'?"),
        (["verify", "vok"], "did you mean 'voc'?"),
        (["verify", "imagenet"], "choose one of collage, voc"),
        (["verify"], "no data set given"),
        (["verify", "--help"], "no data set given"),
        (["verify", "collage", "x"], "lies in no folder"),
        (["verify", "voc", "x", "--data.root", "y"], "two folders were given"),
        (["verify", "voc", "--workers", "-1"], "--workers must be at least 0"),
    ],
)
def test_words_that_are_not_understood_end_with_2(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_usage_names_every_data_set(capsys):
    assert main([]) == main(["--help"]) == 0
    assert "pascal-context, person-part, camvid" in capsys.readouterr().out


def test_a_root_without_permission_ends_with_one_line(tiny_voc, capsys):
    with as_nobody():
        assert main(["verify", "voc", str(tiny_voc.root)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: no permission to read")
    assert message.count("\n") == 1


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
