"""Load weights from files that the user names, strictly or not at all."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.layers import load_state
from models.network import Network


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a safetensors file into a network, every key and every shape.

    Args:
        network: whose state dict the file must match exactly.
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a safetensors file, or of another architecture; says which keys.
    """
    state = read_weights(path)
    try:
        load_state(network, state, unused=())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_backbone_weights(network: Network, path: Path) -> None:
    """Load a safetensors file of an ImageNet classifier into a network's backbone.

    Args:
        network: its backbone takes the weights as its own `pretrained=True` would.
        path: of a file with the classifier's whole state dict, its keys torchvision's or timm's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a safetensors file, or of another architecture; says which keys.
    """
    state = read_weights(path)
    try:
        network.load_backbone(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}: expected a .safetensors file (--model.weights FILE)."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file: {error}. Of a checkpoint, `python -m eval export` "
            "makes one."
        ) from error
