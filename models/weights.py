"""Weights from files the user names: loaded strictly or not at all."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a safetensors file into a network, every key and every shape.

    Args:
        network: whose state dict the file must match exactly.
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a safetensors file, or of another architecture; says which keys.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}: expected a .safetensors file (--model.weights FILE)."
        )
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}.") from error
    expected = network.state_dict()
    problems = [
        *(f"missing {key}" for key in expected.keys() - state.keys()),
        *(f"unexpected {key}" for key in state.keys() - expected.keys()),
        *(
            f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
            for key in expected.keys() & state.keys()
            if state[key].shape != expected[key].shape
        ),
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise ValueError(
            f"{path} holds the weights of another architecture ({len(problems)} differences: "
            f"{shown}). Build the network it was saved from, or give another file."
        )
    network.load_state_dict(state)
