"""A process that serves the explorer: `python -m tests.eval.explore_child FILE`.

It writes its own address to FILE, and behind it every address that it connects to.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.explore.page import Explorer, build_page, serve
from eval.predict import POST_HOC
from tests.eval.explore_scenes import two_scenes

SETTING = replace(POST_HOC, theta_alpha=8.0, theta_beta=20.0, num_iterations_eval=4)


def explorer() -> Explorer:
    """Of the two small scenes."""
    return Explorer(two_scenes(), SETTING, "net.pt")


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
    page = build_page(explorer())
    address = serve(page, "127.0.0.1", None)
    part = log.with_suffix(".part")
    part.write_text("\n".join([address, *seen]) + "\n")
    part.replace(log)
    page.block_thread()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
