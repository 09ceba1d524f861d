"""`crfrnn refine`: sharpen a folder of maps with a folder of images, no checkpoint needed."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn.filters import Normalization
from crfrnn.refine import Kind, Nodata, Output, refine

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MAP_ENDINGS = (".npy", ".npz", ".pt", ".png")
MAP_NAMES = ("high_res", "cam", "maps", "probabilities", "softmax", "logits", "arr_0")
DAMAGED_TAGS = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, struct.error)
SETTINGS = "crfrnn-refine.json"  # in the output folder: what made it


@dataclass(frozen=True)
class FolderOptions:
    """Say which maps are refined with which images, and how.

    Attributes:
        images: folder of photographs.
        maps: folder of maps of the same names: .npy, .npz, .pt or .png. A dictionary of `keys`
            (K,) and maps (K, H, W) holds some labels of many: label keys[k] of its map k.
        out: folder of the results: NAME.png masks with a palette, or NAME.npz of `probabilities`.
        preset: of `crfrnn.PRESETS`.
        kind, certainty, num_labels, background, nodata, output, confidence, unsure: of `refine`.
        theta_gamma, spatial_weight, theta_alpha, theta_beta, bilateral_weight, num_iterations,
            normalization, output_scale: of `refine`; they win over the preset.
        label_bias: of `refine`, a number for each label that the files can name.
        workers: processes, of one thread each. On a GPU: 1.
        device: "cpu" or "cuda".
        trust_pickles: read .npy files that hold Python objects. Such a file can run any program:
            only those that you made yourself.
    """

    images: Path
    maps: Path
    out: Path
    preset: str = "deeplab_v2_resnet101"
    kind: Kind | None = None
    certainty: float = 0.7
    num_labels: int | None = None
    background: float | None = None
    nodata: Nodata = "error"
    output: Output = "mask"
    confidence: float = 0.0
    unsure: int = 255
    theta_gamma: float | None = None
    spatial_weight: float | None = None
    theta_alpha: float | None = None
    theta_beta: float | None = None
    bilateral_weight: float | None = None
    num_iterations: int | None = None
    normalization: Normalization | None = None
    output_scale: float = 1.0
    label_bias: Sequence[float] | None = None
    workers: int = 1
    device: str = "cpu"
    trust_pickles: bool = False

    def of_refine(self, labels: Any | None = None) -> dict[str, Any]:
        """The arguments of `refine` for maps of all labels, or of those that a file names."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in OF_FOLDER}
        if labels is not None and self.label_bias is not None:
            values["label_bias"] = np.asarray(self.label_bias)[labels]
        return values


OF_FOLDER = ("images", "maps", "out", "workers", "device", "trust_pickles")


def refine_folder(options: FolderOptions) -> dict[str, str]:
    """Refine every image that has maps, and report on stderr.

    An interrupted run goes on where it was: a result that is there is not made again.

    Returns:
        The names that were left out, each with its reason.

    Raises:
        ValueError: no image, or an output folder that other settings made.
        FileNotFoundError: a folder that does not exist.
    """
    _check_pillow()
    images, maps = (
        files_by_name(options.images, IMAGE_ENDINGS),
        files_by_name(options.maps, MAP_ENDINGS),
    )
    if not images:
        raise ValueError(f"{options.images} holds no image ({', '.join(IMAGE_ENDINGS)}).")
    left_out = {
        name: f"{options.maps} holds no {name} with {', '.join(MAP_ENDINGS)}"
        for name in images
        if name not in maps
    }
    _settle(options)
    names = [name for name in images if name in maps]
    todo = [(images[n], maps[n]) for n in names if not _result(options, n).exists()]
    began = time.perf_counter()
    for done, (name, reason) in enumerate(_answers(todo, options), start=1):
        if reason:
            left_out[name] = reason
        _progress(done, len(todo), len(names) - len(todo), len(left_out), began)
    if todo:
        print(file=sys.stderr)
    return left_out


def _answers(
    todo: list[tuple[Path, Path]], options: FolderOptions
) -> Iterator[tuple[str, str | None]]:
    """The name of each image that is done, and why it was left out, if it was."""
    work = partial(_refine_file, options)
    if options.workers == 1:
        yield from map(work, todo)
        return
    # spawn: a forked child may not use the thread pools of its parent.
    with get_context("spawn").Pool(options.workers, torch.set_num_threads, (1,)) as pool:
        yield from pool.imap_unordered(work, todo)


def _refine_file(options: FolderOptions, paths: tuple[Path, Path]) -> tuple[str, str | None]:
    image_path, maps_path = paths
    name = image_path.stem
    try:
        image = read_image(image_path)
        maps, labels = read_maps(maps_path, trust_pickles=options.trust_pickles)
        maps = resized(maps.to(options.device), (image.shape[0], image.shape[1]))
        labels = named_labels(labels, maps, options.background)
        settings = options.of_refine(labels)
        result = refine(maps, torch.from_numpy(image), **settings).cpu().numpy()
        _write(_result(options, name), result, labels)
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError) as error:
        return name, f"{type(error).__name__}: {error}"
    return name, None


# Reading


def read_maps(path: Path, *, trust_pickles: bool = False) -> tuple[Tensor, Tensor | None]:
    """Maps as the file holds them, and the label of each where the file names them.

    Args:
        path: .npy (an array), .npz (one array, or `keys` and maps), .pt (a tensor, or a
            dictionary likewise) or .png (a label map; 0 and 255 alone are a foreground mask).
        trust_pickles: also read .npy of Python objects.

    Raises:
        ValueError: a file that holds something else.
    """
    ending = path.suffix.lower()
    if ending == ".png":
        return _read_png(path), None
    value: Any
    if ending == ".pt":
        value = torch.load(path, map_location="cpu", weights_only=True)
    else:
        try:
            value = np.load(path, allow_pickle=trust_pickles)
        except ValueError as error:
            if "pickle" not in str(error):
                raise
            raise ValueError(
                f"{path.name} holds Python objects: pass --trust-pickles where you made it."
            ) from error
        if isinstance(value, np.ndarray) and value.dtype == object:
            value = value.item()
    if isinstance(value, (np.ndarray, Tensor)):
        return torch.as_tensor(value), None
    found = next((key for key in MAP_NAMES if key in value), None)
    keys = list(value)
    if found is None and len(keys) == 1:
        found = keys[0]
    if found is None and all(isinstance(key, (int, np.integer)) for key in keys):
        maps = torch.stack([torch.as_tensor(value[key]) for key in keys])  # {label: map}
        return maps, torch.tensor([int(key) for key in keys])
    if found is None:
        raise ValueError(f"{path.name} has {keys}: expected one of {', '.join(MAP_NAMES)}.")
    labels = torch.as_tensor(np.asarray(value["keys"])).long() if "keys" in keys else None
    return torch.as_tensor(np.asarray(value[found])), labels


def _read_png(path: Path) -> Tensor:
    from PIL import Image

    with Image.open(path) as file:
        if file.mode not in ("1", "L", "P"):
            raise ValueError(
                f"{path.name} has the mode {file.mode}: expected one 8-bit channel of labels, or "
                "of a soft map (then with --kind probabilities)."
            )
        values = np.array(file)
    if np.isin(values, (0, 255)).all() and (values == 255).any() and values.dtype == np.uint8:
        values = values == 255
    return torch.from_numpy(values)


def read_image(path: Path) -> Any:
    """(H, W, 3) uint8 RGB as a viewer shows it, by the rules of `data.reading.read_image`.

    It is turned as its EXIF data say; what is transparent shows white.
    """
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        if file.mode.startswith(("I", "F")):
            raise ValueError(f"{path.name} has more than 8 bits a channel: convert it first.")
        file.load()
        picture: Image.Image = file
        if file.format != "TIFF":  # Pillow turns a TIFF itself
            try:
                picture = ImageOps.exif_transpose(file)
            except DAMAGED_TAGS:
                picture = file  # the pixels are whole
        if picture.has_transparency_data:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture.convert("RGBA"))
        return np.array(picture.convert("RGB"))


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of a smaller grid, drawn to the image's size: bilinear, labels by the nearest."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    if maps.ndim not in (2, 3):
        raise ValueError(f"maps must be (L, H, W) or (H, W), got {tuple(maps.shape)}.")
    grid = maps.reshape(1, -1, *maps.shape[-2:])
    if maps.is_floating_point():
        grid = F.interpolate(grid.float(), size, mode="bilinear", align_corners=False)
    else:
        grid = F.interpolate(grid.float(), size, mode="nearest-exact").to(maps.dtype)
    return grid.reshape(*maps.shape[:-2], *size)


def files_by_name(folder: Path, endings: Iterable[str]) -> dict[str, Path]:
    """Files of a folder by their stem; a name that begins with a dot is no file of the user."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder.")
    paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in endings]
    files: dict[str, Path] = {}
    for path in paths:
        if path.name.startswith("."):
            continue
        if path.stem in files:
            raise ValueError(f"{folder} holds {files[path.stem].name} and {path.name}: keep one.")
        files[path.stem] = path
    return files


# Writing


def named_labels(labels: Tensor | None, maps: Tensor, background: float | None) -> Any | None:
    """The label that each map stands for, (L,), where the file names them.

    A background that is added by the rule is 0, and labels that count without one move up.
    """
    if labels is None:
        return None
    if len(labels) != len(maps):
        raise ValueError(f"{len(labels)} keys for {len(maps)} maps.")
    if background is None:
        return labels.numpy()
    return np.concatenate([[0], labels.numpy() + 1])


def _result(options: FolderOptions, name: str) -> Path:
    return options.out / f"{name}{'.png' if options.output == 'mask' else '.npz'}"


def _write(path: Path, result: Any, labels: Any | None) -> None:
    """Write whole or not at all."""
    from PIL import Image

    part = path.with_name(path.name + ".part")
    if path.suffix == ".npz":
        arrays = {"probabilities": result} if labels is None else {
            "probabilities": result, "keys": labels
        }  # fmt: skip
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
    else:
        if labels is not None:
            table = np.arange(256)
            table[: len(labels)] = labels
            result = table[result]
        if result.max() > 255:
            raise ValueError(
                f"label {result.max()} does not fit a PNG: pass --output probabilities."
            )
        image = Image.fromarray(result.astype(np.uint8))
        image.putpalette(voc_palette())
        image.save(part, format="PNG")
    part.replace(path)


def voc_palette() -> bytes:
    """The 256 colours of PASCAL VOC: bit k of r, g, b is bit 3j + (0, 1, 2) of the label."""
    ids = np.arange(256)[:, None]
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        colours |= ((ids >> (3 * bit + np.arange(3))) & 1) << (7 - bit)
    return colours.astype(np.uint8).tobytes()


def _settle(options: FolderOptions) -> None:
    """Note the settings in the output folder, or raise where others made it."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / SETTINGS
    settings = {k: v for k, v in asdict(options).items() if k not in ("workers", "device", "out")}
    settings = json.loads(json.dumps(settings, default=str))
    if not path.exists():
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    earlier = json.loads(path.read_text(encoding="utf-8"))
    differ = [k for k in settings if settings[k] != earlier.get(k)]
    if differ:
        raise ValueError(
            f"{options.out} holds results of other settings ("
            + ", ".join(f"{k}: {earlier.get(k)} then, {settings[k]} now" for k in differ)
            + "): choose another --out, or remove it."
        )


def _progress(done: int, total: int, before: int, left_out: int, began: float) -> None:
    if done % max(1, total // 200) and done != total:
        return
    rate = done / (time.perf_counter() - began)
    earlier = f", {before} were there" if before else ""
    bad = f", {left_out} left out" if left_out else ""
    print(f"\r{done}/{total} images{earlier}{bad}, {rate:.1f} a second ", end="", file=sys.stderr)


def _check_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError("crfrnn refine reads images with Pillow: pip install pillow.") from error
