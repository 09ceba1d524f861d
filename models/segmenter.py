"""A network and, behind it, a CRF: image in, two maps of logits out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from crfrnn.checks import check_image
from crfrnn.kernels import rounded
from models.crf import CrfConfig, build_crf
from models.layers import (
    freeze,
    halve,
    keep_frozen,
    load_state,
    pad_to_stride,
    padded_size,
    shrink,
    shrink_image,
    stretch,
)
from models.network import ScaleLogits, read_weights
from models.registry import (
    NetworkConfig,
    at_output_stride,
    build_network,
    network_from_dict,
    published_network,
    without_pretrained,
)


@dataclass(frozen=True)
class SegmenterConfig:
    """Everything that `Segmenter` is built from; a checkpoint stores it.

    Attributes:
        num_classes: L.
        network: the numbers of the network.
        crf: the CRF behind it, or none.
        freeze_batch_norm: keep the statistics and the affine parameters of every BN.
        min_size: pad images smaller than this with grey to this size, in training as in
            evaluation, so that image pooling sees one window throughout. 0 pads as little
            as the stride allows.
        label_bias: L numbers, nats, that are taken from the network's logits; () for none. See
            `python -m train bias`.
        network_scale: 1, 2 or 4: the network sees an image that many times smaller, and its logits
            are that much coarser; the CRF sees the image as it is. A network at half size costs a
            quarter.
    """

    num_classes: int = 21
    network: NetworkConfig = field(default_factory=published_network)
    crf: CrfConfig | None = None
    freeze_batch_norm: bool = False
    min_size: int = 0
    label_bias: tuple[float, ...] = ()
    network_scale: int = 1

    def __post_init__(self) -> None:
        if self.network_scale not in (1, 2, 4):
            raise ValueError(f"network_scale must be 1, 2 or 4, got {self.network_scale}.")
        if len(self.label_bias) not in (0, self.num_classes):
            raise ValueError(
                f"label_bias must have one number for each of the {self.num_classes} labels, or "
                f"none; got {len(self.label_bias)}."
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SegmenterConfig:
        """Rebuild the config whose `dataclasses.asdict` is `values`."""
        crf = values["crf"]
        parts = {
            "network": network_from_dict(values["network"]),
            "crf": None if crf is None else CrfConfig(**crf),
        }
        return cls(**{**values, **parts})


class SegmenterOutput(NamedTuple):
    """Logits of one forward pass, both (B, L, H, W) at the size of the image.

    Attributes:
        unary: of the network alone.
        crf: after the CRF; None without one.
        scales: in train mode, the logits of an input pyramid's scales, (B, L, h, w) of the
            padded image, which have losses of their own.
    """

    unary: Tensor
    crf: Tensor | None
    scales: tuple[ScaleLogits, ...] = ()

    @property
    def logits(self) -> Tensor:
        """The final logits: the CRF's where there is one."""
        return self.unary if self.crf is None else self.crf


class Segmenter(nn.Module):
    """A DeepLab with an optional CRF-as-RNN behind it, trained together or apart.

    Args:
        config: of the network and the CRF.

    Attributes:
        about: what else is known of the model, plain values: the labels and the data of one that
            `python -m eval export` wrote. `save_pretrained` stores it.

    Shapes: image (B, 3, H, W), RGB in 0..255 of any size -> logits (B, L, H, W).
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.about: dict[str, Any] = {}
        # Channels last: on a CPU, depthwise convolutions are several times faster that way.
        network = build_network(config.network, config.num_classes)
        self.network = network.to(memory_format=torch.channels_last)
        self.crf = None if config.crf is None else build_crf(config.crf, config.num_classes)
        self.resolution = 1 if config.crf is None else config.crf.resolution
        if config.freeze_batch_norm:
            freeze(self)

    @classmethod
    def from_state(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Segmenter:
        """Rebuild a model in eval mode, from `asdict` of its config and its `state_dict`.

        Raises:
            ValueError: they do not fit each other, or the config is of another version.
        """
        try:
            built = SegmenterConfig.from_dict(dict(config))
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"the config is of another version ({error}): train the model again, or use the "
                "commit that wrote it."
            ) from error
        # The state brings every weight: nothing is to be fetched.
        segmenter = cls(replace(built, network=without_pretrained(built.network)))
        try:
            load_state(segmenter, state, unused=())
        except ValueError as error:
            raise ValueError(
                f"the weights do not fit the model that the config describes: {error}"
            ) from error
        return segmenter.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors, in the layout of the Hugging Face hub.

        Args:
            folder: made if it does not exist; files of these names are replaced.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        text = json.dumps({**self.about, "segmenter": asdict(self.config)}, indent=2)
        (folder / CONFIG_FILE).write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Segmenter:
        """Rebuild what `save_pretrained` wrote, in eval mode, from this folder alone.

        Raises:
            FileNotFoundError: the folder lacks one of the two files.
            ValueError: they are of something else, or do not fit each other.
        """
        config, state = read_pretrained(folder)
        try:
            segmenter = cls.from_state(config.pop("segmenter"), state)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
        segmenter.about = config
        return segmenter

    @property
    def size_step(self) -> int:
        """Images of size_step * k + 1 pixels need no padding."""
        return self.network.size_step * self.config.network_scale

    @property
    def logit_stride(self) -> int:
        """Pixels of the image from one of the network's logits to the next."""
        return self.network.logit_stride * self.config.network_scale

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def forward(self, image: Tensor) -> SegmenterOutput:
        """Compute both maps of logits of a batch of images, RGB in 0..255."""
        if not self.training:
            check_image(image, image, "0..255")
        image = image.float()
        unary, scales = self.unary_and_scales(image)
        crf = None if self.crf is None else self.refine(unary, image)
        return SegmenterOutput(unary, crf, scales)

    def unary(self, image: Tensor) -> Tensor:
        """Compute the network's logits at the size of the image: (B, L, H, W)."""
        return self.enlarge(self.coarse_unary(image), image.shape[2:])

    def unary_and_scales(self, image: Tensor) -> tuple[Tensor, tuple[ScaleLogits, ...]]:
        """Compute `unary`, and what else of the network has a loss; see `SegmenterOutput`."""
        output = self.network.outputs(self.network_input(image))
        factor = self.config.network_scale
        scales = tuple(ScaleLogits(s.logits, s.stride * factor) for s in output.scales)
        return self.enlarge(output.logits, image.shape[2:]), scales

    def coarse_unary(self, image: Tensor) -> Tensor:
        """Compute the network's logits at `logit_stride`, of the padded image: (B, L, h, w)."""
        return self.network(self.network_input(image))  # type: ignore[no-any-return]

    def network_input(self, image: Tensor) -> Tensor:
        """Pad the image to a size whose corners coincide with those of every feature map; shrink.

        Shrunk, it is `network_scale` times smaller.
        """
        image = pad_to_stride(image, self.size_step, self.config.min_size)
        for _ in range(self.config.network_scale.bit_length() - 1):
            image = halve(image)
        return image.contiguous(memory_format=torch.channels_last)

    def padded_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Compute (H, W) of an image after padding: images of one such size can be stacked."""
        return padded_size(size, self.size_step, self.config.min_size)

    def enlarge(self, coarse: Tensor, size: torch.Size) -> Tensor:
        """Enlarge coarse logits to the size (H, W) of the image; subtract `label_bias`.

        They sit at every stride-th pixel, corners included: align_corners is exact. In
        float32 also under autocast: the CRF computes in float32.
        """
        stride = self.logit_stride
        padded = [(n - 1) * stride + 1 for n in coarse.shape[2:]]
        logits = F.interpolate(coarse.float(), padded, mode="bilinear", align_corners=True)
        logits = logits[..., : size[0], : size[1]]
        if self.config.label_bias:
            logits = logits - logits.new_tensor(self.config.label_bias)[:, None, None]
        return logits

    def set_label_bias(self, taken: Sequence[float]) -> None:
        """Take a number from the logits of each label, from now on and in checkpoints.

        Raises:
            ValueError: it is not one for each label.
        """
        self.config = replace(self.config, label_bias=tuple(taken))

    def add_label_bias(self, taken: Sequence[float]) -> None:
        """Take a number from the logits of each label on top of `label_bias`; () for none."""
        if taken:
            own = self.config.label_bias or (0.0,) * len(taken)
            self.set_label_bias([a + b for a, b in zip(own, taken, strict=True)])

    def refine(self, unary: Tensor, image: Tensor) -> Tensor:
        """Run the CRF at its own resolution, and return logits at the size of the image.

        Args:
            unary: (B, L, H, W) logits.
            image: (B, 3, H, W) RGB in 0..255.
        """
        if self.crf is None:
            raise ValueError("this Segmenter has no CRF: give its config a CrfConfig.")
        coarse = self.crf(shrink(unary, self.resolution), shrink_image(image, self.resolution))
        return stretch(coarse, unary.shape[2:])

    def with_crf(
        self, crf: CrfConfig | None, *, freeze_batch_norm: bool | None = None
    ) -> Segmenter:
        """Copy the network, in this one's mode, with another CRF behind it or none.

        Args:
            crf: the CRF.
            freeze_batch_norm: of the copy; as here if not given.
        """
        frozen = self.config.freeze_batch_norm if freeze_batch_norm is None else freeze_batch_norm
        return self._rebuilt(replace(self.config, crf=crf, freeze_batch_norm=frozen))

    def finished(self, output_stride: int | None, *, freeze: bool) -> Segmenter:
        """Copy for a last stage of training, without a CRF: finer features, frozen BN.

        Args:
            output_stride: of the copy; as here if not given.
            freeze: keep BN as it is now.

        Raises:
            ValueError: the network has one output stride, as DeepLab v1 and v2.
        """
        network = self.config.network
        if output_stride is not None:
            network = at_output_stride(network, output_stride)
        frozen = self.config.freeze_batch_norm or freeze
        config = replace(self.config, network=network, crf=None, freeze_batch_norm=frozen)
        return self._rebuilt(config)

    def _rebuilt(self, config: SegmenterConfig) -> Segmenter:
        """Copy the network under another config, in this one's mode and on its device."""
        network = without_pretrained(config.network)  # the weights are copied below
        other = Segmenter(replace(config, network=network))
        other.network.load_state_dict(self.network.state_dict())
        other.about = self.about
        return other.to(self.device).train(self.training)

    @torch.no_grad()
    def describe_crf(self) -> dict[str, Any] | None:
        """Return the CRF's numbers as plain values, widths in full-resolution pixels.

        Kernel weights and compatibility are (L, L) whatever their learnable form. Where each
        iteration has its own they are the means over the iterations, and "by_iteration" holds
        what they are the means of, (T, L, L).
        """
        if self.crf is None:
            return None
        potentials = self.crf.potentials
        sets = {**potentials.kernel_weight_matrices(), "compatibility": potentials.compatibility()}
        untied = potentials.compatibility.num_sets is not None
        means = {k: v.mean(0) if untied else v for k, v in sets.items()}
        return {
            "theta_alpha": rounded(potentials.theta_alpha * self.resolution),
            "theta_beta": rounded(potentials.theta_beta),
            "theta_gamma": rounded(potentials.theta_gamma * self.resolution),
            **self._theta_of_context(),
            "normalization": potentials.normalization,
            "num_iterations": self.crf.num_iterations_eval,
            "resolution": self.resolution,
            "unary_scale": self.crf.log_unary_scale.exp().item(),
            "output_scale": self.crf.log_output_scale.exp().item(),
            "compatibility": means.pop("compatibility").tolist(),
            "kernel_weights": {name: w.tolist() for name, w in means.items()},
            "by_iteration": {k: v.tolist() for k, v in sets.items()} if untied else None,
        }

    def _theta_of_context(self) -> dict[str, Any]:
        assert self.crf is not None
        if self.config.crf is None or self.config.crf.theta_context is None:
            return {}
        theta = self.crf.potentials.kernel("context").log_theta("position").exp()
        return {"theta_context": rounded(theta * self.resolution)}

    def train(self, mode: bool = True) -> Segmenter:
        """Enter train or eval mode; frozen BN stays in eval mode."""
        super().train(mode)
        if self.config.freeze_batch_norm:
            keep_frozen(self)
        return self


# A folder for others to load: what `Segmenter.save_pretrained` writes.

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def read_pretrained(folder: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read config.json and the weights of a folder.

    Raises:
        FileNotFoundError: the folder lacks one of the two files.
        ValueError: they are of something else.
    """
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"no {name} in {folder}: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, "
                "as Segmenter.save_pretrained writes it."
            )
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(config, dict) or not isinstance(config.get("segmenter"), dict):
        raise ValueError(
            f'{path} describes no Segmenter: expected the entry "segmenter", as '
            "Segmenter.save_pretrained writes it."
        )
    config["segmenter"] = _with_tuples(config["segmenter"])
    return config, read_weights(folder / WEIGHTS_FILE)


def _with_tuples(value: Any) -> Any:
    """Make tuples of the lists that JSON made of them."""
    if isinstance(value, dict):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
