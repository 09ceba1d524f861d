"""Data sets that fail in a worker, which a spawned process must be able to import."""

from __future__ import annotations

import os
import signal

from data import Collage, CollageConfig, CorruptSample, Sample, Split


class FragileCollage(Collage):
    """A collage of which one image ends the process, and some cannot be read."""

    def __init__(
        self,
        config: CollageConfig,
        split: Split,
        deadly: int | None = None,
        corrupt: tuple[int, ...] = (),
    ) -> None:
        super().__init__(config, split)
        self.deadly = deadly
        self.corrupt = corrupt

    def __getitem__(self, index: int) -> Sample:
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in self.corrupt:
            raise CorruptSample(f"{self.names[index]}.jpg is truncated")
        return super().__getitem__(index)
