"""The CRF on a GPU: its times and peak memory, beside the card's own ceilings."""

from __future__ import annotations
