"""A process that serves the explorer: `python -m tests.full.eval.explore_child FILE`.

It writes its own address to FILE, and behind it every address that it connects to.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from eval.explore.page import Explorer, build_page, serve
from tests.eval.explore_scenes import SETTING, two_scenes


def main(log: Path) -> None:
    """Serve until killed."""
    connect = socket.socket.connect
    seen: list[str] = []

    def watched(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            seen.append(address[0])
            if log.is_file():
                with log.open("a") as file:
                    file.write(f"{address[0]}\n")
        connect(self, address)

    socket.socket.connect = watched  # type: ignore[method-assign, assignment]
    page = build_page(Explorer(two_scenes(), SETTING, "net.pt"))
    address = serve(page, "127.0.0.1", None)
    part = log.with_suffix(".part")
    part.write_text("\n".join([address, *seen]) + "\n")
    part.replace(log)
    page.block_thread()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
