"""The embedded data set: `Collage` and its `CollageConfig`."""

from __future__ import annotations

from data.collage.dataset import Collage, CollageConfig

__all__ = ["Collage", "CollageConfig"]
