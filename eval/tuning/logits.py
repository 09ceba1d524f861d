"""The network's logits on disk, one file for each image, each signed by what made it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data import Sample


def digest(data: bytes) -> str:
    """Enough of a SHA-256 to tell files apart."""
    return hashlib.sha256(data).hexdigest()[:32]


class LogitsFolder:
    """Logits of a network's images; a file that is damaged, or of other things, is made anew.

    Args:
        path: of the folder; made with the first file.
        network: digest of the checkpoint.
    """

    def __init__(self, path: Path, network: str) -> None:
        self.path = path
        self.network = network

    def of(self, sample: Sample, compute: Callable[[], Tensor]) -> tuple[Tensor, str | None]:
        """The logits of an image, and a remark where a file had to be replaced.

        Args:
            sample: the image.
            compute: runs the network: (1, L, h, w) on the CPU.
        """
        path = self.path / f"{sample.name}.safetensors"
        made_by = {
            "checkpoint": self.network,
            "image": sample.name,
            "pixels": digest(sample.image.numpy().tobytes()),
        }
        remark = None
        if path.is_file():
            try:
                return self._read(path, made_by), None
            except (ValueError, SafetensorError, OSError) as error:
                remark = f"{path} is computed again: {error}"
        logits = compute().contiguous()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        signed = {**made_by, "logits": digest(logits.numpy().tobytes())}
        save_file({"logits": logits}, temporary, metadata=signed)
        temporary.replace(path)
        return logits, remark

    @staticmethod
    def _read(path: Path, made_by: dict[str, str]) -> Tensor:
        with safe_open(path, framework="pt") as file:
            signed = file.metadata() or {}
            for name, value in made_by.items():
                if signed.get(name) != value:
                    raise ValueError(f"it was made by another {name}")
            logits: Tensor = file.get_tensor("logits")
        if signed.get("logits") != digest(logits.numpy().tobytes()):
            raise ValueError("its logits are damaged")
        return logits
