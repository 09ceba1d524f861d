"""Archives: what is unpacked, and what is refused."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from data.download.unpack import unpack
from tests.data.archives import tar_of, zip_of


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


PYTHONS = ["as it is", "without filters"]
"""What unpacks: this Python, and one before 3.10.12 or 3.11.4, whose tarfile has no filters."""


@pytest.fixture(params=PYTHONS)
def python(request, monkeypatch) -> None:
    if request.param == "without filters":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        monkeypatch.delattr(tarfile, "FilterError", raising=False)


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_archives_are_unpacked(tmp_path, make):
    (tmp_path / "a").write_bytes(make("folder/file.txt"))
    for _ in range(2):  # a repeated call finds its own files
        unpack(tmp_path / "a", tmp_path / "out")
        assert (tmp_path / "out" / "folder" / "file.txt").read_text() == "hello"


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize(
    "content",
    [
        tar_of("../evil.txt"),
        tar_of("link", tarfile.SYMTYPE, "../../evil"),
        tar_of("link", tarfile.LNKTYPE, "../evil"),
        tar_of("device", tarfile.CHRTYPE),
        zip_of("../evil.txt"),
        zip_of("/evil.txt"),
        zip_of("a/../../evil.txt"),
    ],
)
def test_members_outside_are_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="does not belong below"):
        unpack(tmp_path / "a", tmp_path / "out")
    assert names(tmp_path / "out") == []
    assert names(tmp_path) == ["a", "out"]


FLIPPED = tar_of("x")[:20] + bytes(30) + tar_of("x")[50:]


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize(
    "content",
    [b"<html></html>", b"", tar_of("x")[:40], FLIPPED, zip_of("x")[:-9]],
    ids=["page", "empty", "cut tar", "flipped tar", "cut zip"],
)
def test_damaged_archives_say_so(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or is no archive"):
        unpack(tmp_path / "a", tmp_path / "out")


@pytest.mark.usefixtures("python")
def test_nobody_else_may_write_what_is_unpacked(tmp_path):
    (tmp_path / "a").write_bytes(tar_of("file", mode=0o777))
    unpack(tmp_path / "a", tmp_path / "out")
    assert (tmp_path / "out" / "file").stat().st_mode & 0o777 == 0o755
