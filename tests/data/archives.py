"""Archives of one member, for the tests of downloads."""

from __future__ import annotations

import io
import tarfile
import zipfile


def tar_of(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.mode = kind, link, mode
        member.size = 5 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"hello"))
    return buffer.getvalue()


def zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        content.writestr(name, "hello")
    return buffer.getvalue()
