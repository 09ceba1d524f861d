"""`python -m data`: show, verify, download, and words that are not understood."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile

import pytest
from PIL import Image

from data import download
from data.__main__ import main
from data.download import SOURCES, Archive
from tests.data.layouts import LAYOUTS, truncate, write_folder


def test_show_every_data_set(tmp_path, tiny_voc, capsys):
    out = tmp_path / "new" / "sheet.png"
    arguments = f"show collage --out {out} --count 4 --cell 40 --data.size 32 --data.num-train 3"
    assert main(arguments.split()) == 0
    with Image.open(out) as picture:
        assert picture.width > 3 * 2 * 40
    assert "wrote" in capsys.readouterr().out
    roots = {"voc": tiny_voc.root, **{name: tmp_path / name for name in LAYOUTS}}
    for name, root in roots.items():
        if name in LAYOUTS:
            LAYOUTS[name](root)
        out = tmp_path / f"{name}.png"
        assert main(["show", name, str(root), "--out", str(out), "--split", "tune"]) == 0
        assert out.is_file()
    assert "8 of 8 images of folder, tune" in " ".join(capsys.readouterr().out.split())


def test_verify_says_what_it_read_and_ends_with_1_where_anything_is_wrong(tmp_path, capsys):
    write_folder(tmp_path)
    assert main(["verify", "folder", "--data.root", str(tmp_path), "--split", "tune"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("tree", "tune: 8 images", "every file is well formed"))
    assert "train:" not in printed
    for mask in (tmp_path / "masks").iterdir():
        truncate(mask)
    out = tmp_path / "reports" / "report.json"
    assert main(["verify", "folder", str(tmp_path), "--out", str(out), "--limit", "2"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("cannot be decoded") == 2 * 3
    assert "more; --out FILE.json lists all" in printed
    splits = json.loads(out.read_text())["splits"]
    assert sum(len(split["problems"]) for split in splits) == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("verifi voc", "Did you mean 'verify'?"),
        ("verify imagenet", "choose one of collage, voc"),
        ("verify", "no data set given"),
        ("verify collage x", "lies in no folder"),
        ("verify voc x --data.root y", "two folders were given"),
        ("verify voc --workers -1", "--workers must be at least 0"),
        ("verify voc --data.root nowhere", "error: the data root"),
        ("prepare voc-animal x", "Did you mean 'voc-animals'?"),
        ("prepare coco x --min-pixels -1", "-1"),
        ("download cityscapes --root x", "needs an account"),
    ],
)
def test_words_that_are_not_understood_end_with_2(capsys, arguments, message):
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err


def test_the_usage_names_every_data_set_and_an_error_is_one_line(tmp_path, capsys):
    assert main([]) == main(["--help"]) == 0
    assert "pascal-context, person-part, camvid" in capsys.readouterr().out
    for command in ("show", "verify", "prepare", "download"):
        assert main([command, "--help"]) == 0
        assert "usage: python -m data" in capsys.readouterr().out
    assert main(["verify", "voc", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def tar_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    return buffer.getvalue()


def test_download_checks_and_unpacks(tmp_path, monkeypatch, capsys):
    content = tar_of("VOC2012/file.txt")
    right, url = hashlib.md5(content).hexdigest(), "http://127.0.0.1:9/file.tar.gz"

    def fetched(address, root, filename, md5):
        """As torchvision fetches, without a network."""
        assert address == url
        root.mkdir(exist_ok=True)
        (root / filename).write_bytes(content)
        if md5 != right:
            raise RuntimeError("File not found or corrupted.")

    def download(md5: str, root: str = "new") -> int:
        archive = Archive(url, "1 kB", md5, into="here")
        monkeypatch.setitem(SOURCES, "voc", ((archive,), "verify voc {root}/x"))
        return main(["download", "voc", "--root", str(tmp_path / root), "--no-keep"])

    monkeypatch.setattr("data.download.download_url", fetched)
    assert download("0" * 32) == 2
    (tmp_path / "other").mkdir()
    for held, status in ((content[:-5], 2), (content, 0)):  # came otherwise
        (tmp_path / "other" / "file.tar.gz").write_bytes(held)
        assert download(right, "other") == status
    assert "complete it with `curl" in capsys.readouterr().err
    assert download("0" * 32) == 2
    assert download(right) == download(right) == 0
    assert not (tmp_path / "new" / "file.tar.gz").exists()
    printed = capsys.readouterr()
    assert "another MD5 than 000" in printed.err
    assert f"curl -L -C - -o {tmp_path}/new/file.tar.gz {url}" in printed.out
    assert "unpacked before" in printed.out
    assert f"next: python -m data verify voc {tmp_path}/new/x" in printed.out
    assert (tmp_path / "new" / "here" / "VOC2012" / "file.txt").read_text() == "hello"


def test_archives_do_not_write_outside_their_folder(tmp_path):
    (tmp_path / "a.tgz").write_bytes(tar_of("../evil.txt"))
    (tmp_path / "b.tar").write_bytes(b"no tar")
    (tmp_path / "c.zip").write_bytes(b"no zip")
    for name in ("a.tgz", "b.tar", "c.zip"):
        with pytest.raises(ValueError, match="damaged or not the published archive"):
            download._unpack(tmp_path / name, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as content:
        content.writestr("../evil.txt", "hello")
    download._unpack(tmp_path / "d.zip", tmp_path / "out")
    assert not (tmp_path / "evil.txt").exists()
