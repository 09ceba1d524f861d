"""What has to be derived from public data sets before they can be read; run by `data prepare`."""

from __future__ import annotations
