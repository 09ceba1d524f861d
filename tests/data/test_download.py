from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.__main__ import main
from data.download.archives import SOURCES, WITHOUT_ADDRESS, Archive, Source
from data.download.fetch import fetch
from data.kinds import KINDS
from tests.data.archives import tar_of

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A web server of one file, whose habits tests change.

    Attributes:
        content: the file.
        etag: its tag, or none.
        ranges: answer requests for a range.
        cut: send no more than so many bytes of a response, or all.
        length: say how long the response is.
        requests: the headers of every request.
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.ranges = True
        self.cut: int | None = None
        self.length = True
        self.requests: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/file.tar"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(handler.headers.items()))
        if not handler.path.endswith("file.tar"):
            handler.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        changed = handler.headers.get("If-Range", self.etag) != self.etag
        start = int(asked[1]) if asked and self.ranges and not changed else 0
        if start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.end_headers()
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            span = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            handler.send_header("Content-Range", span)
        if self.etag is not None:
            handler.send_header("ETag", self.etag)
        if self.length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cut])

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def bring(server: Server, target: Path, md5: str | None = MD5) -> str:
    return fetch(server.url, target, md5, lambda done, total: None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole(server, tmp_path):
    steps: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "file.tar"
    assert fetch(server.url, target, MD5, lambda *step: steps.append(step)) == SHA256
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["file.tar"]
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_there_is_checked_and_not_fetched(server, tmp_path):
    target = tmp_path / "file.tar"
    target.write_bytes(CONTENT)
    assert bring(server, target) == SHA256
    target.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"has the MD5 .* remove it and run this again"):
        bring(server, target)
    assert target.read_bytes() == b"mine"
    assert server.requests == []


def test_a_cut_connection_is_resumed(server, tmp_path):
    target = tmp_path / "file.tar"
    server.cut = 100_000
    for done in (100_000, 200_000):
        with pytest.raises(OSError, match=f"cut off after {done} of 300000 bytes: run this again"):
            bring(server, target)
        assert not target.exists()
    server.cut = None
    assert bring(server, target) == SHA256
    assert [r.get("Range") for r in server.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["file.tar"]


def test_a_server_that_ignores_ranges_starts_again(server, tmp_path):
    server.cut, server.ranges = 100_000, False
    with pytest.raises(OSError, match="cut off"):
        bring(server, tmp_path / "file.tar")
    server.cut = None
    steps: list[tuple[int, int | None]] = []
    target = tmp_path / "file.tar"
    assert fetch(server.url, target, MD5, lambda *step: steps.append(step)) == SHA256
    assert steps[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("md5", [MD5, None])
def test_a_file_that_changed_in_between_starts_again(server, tmp_path, md5):
    server.content = bytes(300_000)
    server.cut = 100_000
    with pytest.raises(OSError, match="cut off"):
        bring(server, tmp_path / "file.tar", md5)
    server.content, server.etag, server.cut = CONTENT, '"two"', None
    assert bring(server, tmp_path / "file.tar", md5) == SHA256
    assert server.requests[-1]["If-Range"] == '"one"'


def test_without_tag_and_checksum_nothing_is_resumed(server, tmp_path):
    server.cut, server.etag = 100_000, None
    with pytest.raises(OSError, match="cut off"):
        bring(server, tmp_path / "file.tar", None)
    server.cut = None
    assert bring(server, tmp_path / "file.tar", None) == SHA256
    assert "Range" not in server.requests[-1]


def test_a_part_that_was_complete_already(server, tmp_path):
    (tmp_path / "file.tar.part").write_bytes(CONTENT)
    assert bring(server, tmp_path / "file.tar") == SHA256


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "file.tar.part").write_bytes(CONTENT + b"x")
    assert bring(server, tmp_path / "file.tar") == SHA256


def test_a_response_of_unknown_length(server, tmp_path):
    server.length = False
    assert bring(server, tmp_path / "file.tar") == SHA256


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(ValueError, match=rf"has the MD5 .*, expected {MD5}: it was removed"):
        bring(server, tmp_path / "file.tar")
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "file.tar").exists()


def test_an_absent_file_is_an_error_of_the_server(server, tmp_path):
    with pytest.raises(OSError, match="the server answers 404"):
        fetch(server.url + "x", tmp_path / "file.tar", MD5, lambda done, total: None)


def test_no_network(tmp_path):
    server = Server()
    server.close()
    with pytest.raises(OSError, match=r"cannot be reached.*check the network"):
        bring(server, tmp_path / "file.tar")


def test_a_disk_without_room_is_noticed_before(server, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=299_999)
    monkeypatch.setattr("data.download.fetch.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"has 299999 bytes free, .* needs 300000: make room"):
        bring(server, tmp_path / "file.tar")


def test_an_interrupted_download_keeps_what_came(server, tmp_path):
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path / "file.tar", MD5, stop)
    assert (tmp_path / "file.tar.part").stat().st_size > 0
    assert bring(server, tmp_path / "file.tar") == SHA256


def offer(server: Server, monkeypatch: pytest.MonkeyPatch, md5: str | None) -> None:
    server.content = tar_of("VOC2012/file.txt")
    archive = Archive(server.url, "file.tar", "1 kB", md5, into="here")
    monkeypatch.setitem(SOURCES, "voc", Source((archive,), "python -m data verify voc {root}/x"))


def test_the_command_fetches_checks_and_unpacks(server, tmp_path, monkeypatch, capsys):
    offer(server, monkeypatch, None)
    arguments = ["download", "voc", "--root", str(tmp_path), "--no-keep"]
    assert main(arguments) == 0
    assert (tmp_path / "here" / "VOC2012" / "file.txt").read_text() == "hello"
    printed = capsys.readouterr().out
    digest = hashlib.sha256(server.content).hexdigest()
    assert digest in printed.replace("\n", "")
    assert f"next: python -m data verify voc {tmp_path}/x" in printed.replace("\n", "")
    assert names(tmp_path) == ["file.tar.unpacked", "here"]
    assert main(arguments) == 0
    assert "unpacked before" in capsys.readouterr().out
    assert len(server.requests) == 1


def test_the_command_ends_with_a_message(server, tmp_path, monkeypatch, capsys):
    offer(server, monkeypatch, "0" * 32)
    assert main(["download", "voc", "--root", str(tmp_path)]) == 2
    assert "expected 000" in capsys.readouterr().err


def test_an_interrupted_command_ends_with_130(server, tmp_path, monkeypatch, capsys):
    def interrupt(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("data.download.commands.fetch", interrupt)
    offer(server, monkeypatch, None)
    assert main(["download", "voc", "--root", str(tmp_path)]) == 130
    assert "run this again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"), [("cityscapes", "needs an account"), ("folder", "nothing to fetch")]
)
def test_what_has_no_address_says_how_to_get_it(tmp_path, capsys, name, message):
    assert main(["download", name, "--root", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_every_kind_is_accounted_for():
    assert {*SOURCES, *WITHOUT_ADDRESS} == {*KINDS, "sbd"}
    assert not SOURCES.keys() & WITHOUT_ADDRESS.keys()
    for source in SOURCES.values():
        assert "{root}" in source.then
        for archive in source.archives:
            assert archive.url.startswith("http")
            assert archive.md5 is None or re.fullmatch(r"[0-9a-f]{32}", archive.md5)
