"""Serve a local page where a person moves the options of a CRF and sees at once what changes."""

from __future__ import annotations

import html
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import gradio as gr
import numpy as np
import pandas as pd
import torch
import tyro
from matplotlib import colormaps
from torch import Tensor

from crfrnn import PRESETS
from crfrnn.filters import Filter
from data import Split
from data.dataset import Ids, LabelSet, Picture, overlay
from eval.explore.scenes import Scene, Scenes, of_network, of_probabilities, of_split
from eval.metrics import confusion_matrix, mean_iou
from eval.predict import POST_HOC, labels_of
from eval.setting_lines import (
    ALWAYS,
    LINE_OPTIONS,
    code,
    is_scalar,
    predict_line,
    preset_setting,
    setting_of,
    train_line,
)
from models import CrfConfig
from models.crf import SEARCHED, SOLVERS, build_crf, options_taken_by, unused_options
from models.layers import shrink, shrink_image, stretch
from runtime.checkpoint import load_segmenter, read_checkpoint, weights_file
from runtime.distributed import DeviceName, device_named
from runtime.run_folder import split_of

# The CRF of a setting, with everything reused that a new setting leaves alone.

FAINT = 0.01  # a probability that no pixel exceeds keeps a label out of a preview
MOST_KERNELS = 4  # sets of kernels to keep, each some ten megabytes on a photograph
EXACT_PIXELS = 5_000  # some 2.5e7 pairs an iteration: about a second a run

KERNEL_OPTIONS = tuple(
    name
    for name in LINE_OPTIONS
    if name not in ("inference", "num_iterations_eval")
    and not any(name in options_taken_by(solver) for solver in SOLVERS)
    and not name.endswith(("_weight", "_scale"))
)
"""Options that the kernels may be built from; the rest certainly leave them alone."""


@dataclass(frozen=True)
class Refined:
    """The result of a CRF.

    Attributes:
        q: (L, H, W) float32 marginals at the size of the image.
        grid: (h, w) that the CRF ran on.
        seconds: of this run, wall time.
        reused: the kernels were there already.
    """

    q: Tensor
    grid: tuple[int, int]
    seconds: float
    reused: bool


class Refinery:
    """Run CRFs, one at a time, and keep the kernels of the last few settings.

    Args:
        exact_pixels: largest grid that the exact filter may run on.
    """

    def __init__(self, exact_pixels: int = EXACT_PIXELS) -> None:
        self.exact_pixels = exact_pixels
        self._kernels: OrderedDict[tuple[object, ...], list[Filter]] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    @torch.no_grad()
    def refine(self, scene: Scene, setting: CrfConfig, *, preview: bool = False) -> Refined:
        """Compute the marginals.

        Args:
            scene: the image.
            setting: of the CRF.
            preview: be faster, while a slider moves: at half resolution at least, and without the
                labels that the network gives to no pixel with a probability above `FAINT`.

        Raises:
            ValueError: a value out of its range, or the exact filter on a large grid.
        """
        with self._one_at_a_time:
            began = time.perf_counter()
            labels: Any = slice(None)
            if preview:
                setting = preview_of(setting)
                labels = (scene.most_likely >= FAINT).nonzero()[:, 0]
            unary = shrink(scene.unary[:, labels], setting.resolution)
            crf = build_crf(setting, unary.shape[1]).eval()
            kernels, reused = self._kernels_of(scene, setting)
            logits = stretch(crf.infer(unary, kernels), scene.unary.shape[2:])
            q = torch.zeros_like(scene.unary[0])
            q[labels] = logits.softmax(1)[0]
            height, width = unary.shape[2:]
            return Refined(q, (height, width), time.perf_counter() - began, reused)

    @torch.no_grad()
    def energies(self, scene: Scene, setting: CrfConfig) -> pd.DataFrame:
        """Trace the energy of q_0, ..., q_T, in nats per pixel of the grid of a preview.

        It takes three times as long as the iterations alone, so not the finest grid.

        Returns:
            Columns iteration, nats per pixel and quantity: "of q" is E(q_t), "KL + const." is
            <q_t, log q_t> + E(q_t), the KL divergence up to log Z.
        """
        with self._one_at_a_time:
            setting = preview_of(setting)
            unary = shrink(scene.unary, setting.resolution)
            crf = build_crf(setting, unary.shape[1]).eval()
            kernels, _ = self._kernels_of(scene, setting)
            pixels = unary[0, 0].numel()
            rows = [
                (str(record.iteration), energy.item() / pixels, name)
                for record in crf.trace(unary, kernels)
                for name, energy in (
                    ("of q", record.relaxed_energy),
                    ("KL + const.", record.free_energy),
                )
            ]
            return pd.DataFrame(rows, columns=["iteration", "nats per pixel", "quantity"])

    def _kernels_of(self, scene: Scene, setting: CrfConfig) -> tuple[list[Filter], bool]:
        key = (scene.name, *(getattr(setting, name) for name in KERNEL_OPTIONS))
        if key in self._kernels:
            self._kernels.move_to_end(key)
            return self._kernels[key], True
        image = shrink_image(scene.image, setting.resolution)
        pixels = image[0, 0].numel()
        exact = "exact" in (setting.spatial_filter, setting.bilateral_filter)
        if exact and pixels > self.exact_pixels:
            raise ValueError(
                f"the exact filter sums over all pairs of pixels, and {pixels:,} are too many for "
                f"a page that answers at once: choose a coarser resolution (at most "
                f"{self.exact_pixels:,} pixels), or the lattice."
            )
        crf = build_crf(setting, scene.unary.shape[1])
        self._kernels[key] = crf.potentials.build_kernels(image)
        if len(self._kernels) > MOST_KERNELS:
            self._kernels.popitem(last=False)
        return self._kernels[key], False


def preview_of(setting: CrfConfig) -> CrfConfig:
    """Coarsen a setting to half resolution at least."""
    return replace(setting, resolution=max(2, setting.resolution))


# Pictures and numbers of a result.


def heat(probability: Tensor) -> Picture:
    """Draw (H, W) of 0..1 in matplotlib's inferno: black, red, yellow."""
    return np.asarray(colormaps["inferno"](probability.numpy(), bytes=True)[..., :3])


def difference(pixels: Picture, before: Ids, after: Ids, palette: Picture) -> Picture:
    """Draw the image in pale grey, and in full colour the new label of what changed."""
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    pale = np.repeat((150 + 0.4 * luma)[..., None], 3, axis=2)
    changed = (before != after)[..., None]
    return np.where(changed, palette[after], pale).round().astype(np.uint8)


def score(scene: Scene, ids: Ids, scored: tuple[int, ...]) -> float:
    """Score one image without its void: mIoU of the scored classes in truth or prediction."""
    assert scene.truth is not None
    return float(mean_iou(confusion_matrix(scene.truth, ids, scene.unary.shape[1]), scored))


def facts(scene: Scene, refined: Refined, labels: LabelSet, *, preview: bool) -> str:
    """Summarise a result in a line of Markdown."""
    after = refined.q.argmax(0).numpy()
    said = [f"changed **{percent((scene.before != after).mean())}**"]
    if scene.truth is not None:
        old, new = (100 * score(scene, ids, labels.scored) for ids in (scene.before, after))
        gain = f"{new - old:+.1f}".replace("-", "−")
        said.insert(0, f"mIoU of this image **{old:.1f} → {new:.1f} ({gain})**")
    height, width = refined.grid
    kernels = "preview" if preview else "kernels reused" if refined.reused else "kernels built"
    said += [f"**{1000 * refined.seconds:.0f} ms**", f"grid **{width} × {height}**, {kernels}"]
    return "  ·  ".join(said)


def legend(before: Ids, after: Ids, labels: LabelSet) -> str:
    """List the labels with their shares of the pixels, and the five largest changes, as HTML."""

    def chip(label: int) -> str:
        colour = "rgb({},{},{})".format(*labels.palette[label])
        return f'<i style="background:{colour}"></i>{html.escape(labels.classes[label])}'

    def items(counts: dict[str, int]) -> str:
        shares = ((words, percent(count / after.size)) for words, count in counts.items())
        return "".join(f"<li>{words} <b>{share}</b></li>" for words, share in shares)

    ids, counts = np.unique(after, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shares = {chip(ids[k]): int(counts[k]) for k in order}
    moved = np.stack([before, after])[:, before != after]
    pairs, counts = np.unique(moved, axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:5]
    moves = {f"{chip(pairs[0, k])} → {chip(pairs[1, k])}": int(counts[k]) for k in order}
    changes = f"<h3>changes</h3><ul>{items(moves)}</ul>" if moves else ""
    return f'<div class="legend"><h3>labels</h3><ul>{items(shares)}</ul>{changes}</div>'


def percent(share: float) -> str:
    """Write a share for a reader."""
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else "< 0.1 %"


def folded(command: str, separator: str, end: str) -> str:
    """Break a long line before some separators, so that it needs no wrapping on a phone."""
    first, *rest = command.split(separator)
    lines = [first]
    for part in rest:
        if len(lines[-1]) + len(separator) + len(part) <= 40:
            lines[-1] += separator + part
        else:
            lines.append("    " + separator.removeprefix(",").strip() + part)
    return end.join(lines)


# The controls: one for every option of a post-hoc CRF.

START = "as it began"
"""Menu entry for the setting that the page opened with."""

TITLES = {
    "theta_alpha": "θα, position, pixels",
    "theta_beta": "θβ, colour, grey levels",
    "theta_gamma": "θγ, spatial, pixels",
    "num_iterations_eval": "iterations",
    "normalization": "normalisation",
    "inference": "solver",
}
RANGES: dict[str, tuple[float, float]] = {
    "theta_alpha": (200, 1),
    "theta_beta": (60, 0.5),
    "theta_gamma": (20, 0.25),
    "bilateral_weight": (20, 0.25),
    "spatial_weight": (20, 0.25),
    "num_iterations_eval": (20, 1),
    "damping": (0.95, 0.05),
}
"""Largest value and step of a slider, where they are not 3 and 0.05."""

CHOICES: dict[str, list[Any]] = {
    "resolution": [1, 2, 4, 8],
    "step": [1.0, 0.5, "decaying", "line_search"],
}


def control(name: str, value: Any) -> gr.Slider | gr.Dropdown:
    """Make the control of an option: a menu where it has a few values, else a slider."""
    hint = get_type_hints(CrfConfig)[name]
    title = TITLES.get(name, name.replace("_", " "))
    for solver in SOLVERS:
        if name in options_taken_by(solver):
            title += f" ({solver.replace('_', '-')})"
    choices = list(get_args(hint)) if get_origin(hint) is Literal else CHOICES.get(name)
    if choices is not None:
        choices = list(dict.fromkeys([*choices, value]))
        return gr.Dropdown(choices, value=value, label=title, elem_id=name)
    high, step = RANGES.get(name, (3, 0.05))
    high = max(high, 1.5 * value)  # it reaches the value that it begins with
    return gr.Slider(0, high, value, step=step, label=title, elem_id=name, buttons=[])


def setting_from(start: CrfConfig, values: list[Any]) -> CrfConfig:
    """Make the setting of the page.

    Args:
        start: setting that the page opened with; it fills in what no control moves.
        values: of `LINE_OPTIONS`, in order. Those of the other solver are ignored.

    Raises:
        ValueError: a value out of its range.
    """
    moved = dict(zip(LINE_OPTIONS, values, strict=True))
    for name, value in moved.items():
        if isinstance(value, float):  # sliders give 0.30000000000000004
            moved[name] = float(f"{value:.6g}")
        elif isinstance(getattr(start, name), float) and isinstance(value, int):
            moved[name] = float(value)
    moved["num_iterations_eval"] = int(moved["num_iterations_eval"])
    moved |= {name: getattr(POST_HOC, name) for name in unused_options(moved["inference"])}
    return replace(start, **moved)


def values_of(setting: CrfConfig) -> list[Any]:
    """List the values of the controls that show a setting."""
    return [getattr(setting, name) for name in LINE_OPTIONS]


def with_preset(start: CrfConfig, now: CrfConfig, name: str) -> CrfConfig:
    """Take widths, weights, normalisation and iterations of a preset, and the rest as it is now.

    Args:
        start: setting that `START` returns to, whole.
        now: setting of the page.
        name: of a preset, or `START`.
    """
    if name == START:
        return start
    published = preset_setting(name)
    return replace(now, **{option: getattr(published, option) for option in ALWAYS})


# The page.

SETTLE = 0.15  # seconds without a move before the full view is computed
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
CSS = """
.small img { width: 100%; height: 100%; object-fit: contain; }
.legend h3 { margin: 8px 0 2px; font-size: 13px; font-weight: 600; }
.legend ul { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 0;
  padding: 0; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  margin-right: 5px; box-shadow: 0 0 0 1px #8886; }
"""


class Explorer:
    """Compute what the page shows.

    Args:
        scenes: what can be looked at.
        start: setting that the page opens with.
        checkpoint: for the command line.
        note: a sentence under the title, or nothing.
    """

    def __init__(self, scenes: Scenes, start: CrfConfig, checkpoint: str, note: str = "") -> None:
        self.scenes = scenes
        self.start = start
        self.checkpoint = checkpoint
        self.note = note
        self.refinery = Refinery()
        self.labels = scenes.labels

    def pictures(
        self, name: str, label: str, values: list[Any], *, preview: bool = False
    ) -> tuple[Any, ...]:
        """Refine, and return the values of `comparison`, `words`, `key` and the small images.

        Where that fails, the words say why.
        """
        try:
            scene = self.scenes[name]
        except (ValueError, OSError) as error:
            return None, alert(error), "", None, None, None
        palette = self.labels.palette
        before = overlay(scene.pixels, scene.before, palette, 0.4)
        truth = None if scene.truth is None else overlay(scene.pixels, scene.truth, palette, 0.4)
        try:
            setting = setting_from(self.start, values)
            refined = self.refinery.refine(scene, setting, preview=preview)
        except ValueError as error:
            return (before, before), alert(error), "", None, None, truth
        after = refined.q.argmax(0).numpy()
        return (
            (before, overlay(scene.pixels, after, palette, 0.4)),
            facts(scene, refined, self.labels, preview=preview),
            legend(scene.before, after, self.labels),
            heat(refined.q[self.labels.classes.index(label)]),
            difference(scene.pixels, scene.before, after, palette),
            truth,
        )

    def curve(self, name: str, values: list[Any]) -> pd.DataFrame | None:
        """Return the energy of every iteration; nothing where `pictures` says what is wrong."""
        try:
            return self.refinery.energies(self.scenes[name], setting_from(self.start, values))
        except (ValueError, OSError):
            return None

    def lines(self, name: str, values: list[Any]) -> tuple[str, str]:
        """Return what can be pasted: code, and command lines."""
        try:
            setting = setting_from(self.start, values)
            layer = code(setting, len(self.labels.classes))
            build_crf(setting, len(self.labels.classes))
        except ValueError as error:  # nothing to copy: `pictures` says it, too
            return f"# {error}", f"# {error}"
        image = str(self.scenes.paths.get(name, "IMAGES"))
        commands = [folded(predict_line(setting, self.checkpoint, image), " --", " \\\n")]
        try:
            commands.append(folded(train_line(setting), " --", " \\\n"))
        except ValueError as error:
            commands.append(f"# no line for python -m train: {error}")
        return folded(layer, ", ", ",\n"), "\n\n".join(commands)

    def first_label(self, name: str) -> str:
        """Name the class, beside the first, that the network sees most of."""
        try:
            counts = np.bincount(self.scenes[name].before.ravel(), minlength=2)
        except (ValueError, OSError):
            return self.labels.classes[0]
        return self.labels.classes[1 + int(counts[1:].argmax()) if counts[1:].any() else 0]


def alert(error: Exception) -> str:
    """Write an error for the page."""
    return f"⚠️ **{html.escape(str(error))}**"


def build_page(explorer: Explorer) -> gr.Blocks:
    """Build the page, not yet served."""
    names = list(explorer.scenes.loaders)
    first, label = names[0], explorer.first_label(names[0])
    start = values_of(explorer.start)
    page: gr.Blocks
    with gr.Blocks(
        title="crfrnn explore", analytics_enabled=False, fill_width=True, delete_cache=(600, 600)
    ) as page:
        # The picture comes first: on a phone it lies above the sliders.
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                comparison = gr.ImageSlider(
                    label="network alone | behind the CRF", interactive=False, max_height=640,
                    elem_id="main", buttons=["fullscreen"],
                )  # fmt: skip
                words = gr.Markdown(elem_id="facts")
                key = gr.HTML(elem_id="legend", padding=False)
            with gr.Column(scale=1, min_width=320):
                if explorer.note:
                    gr.Markdown(explorer.note)
                image = gr.Dropdown(names, value=first, label="image", visible=len(names) > 1)
                preset = gr.Dropdown([START, *PRESETS], value=START, label="preset")
                by_name = {
                    name: control(name, value)
                    for name, value in zip(LINE_OPTIONS, start, strict=True)
                    if name in (*SEARCHED, "num_iterations_eval")
                }
                shown = gr.Dropdown(
                    list(explorer.labels.classes), value=label, label="probability of"
                )
        with gr.Accordion("filter, solver, resolution", open=False), gr.Row():
            by_name |= {
                name: control(name, value)
                for name, value in zip(LINE_OPTIONS, start, strict=True)
                if name not in by_name
            }
        with gr.Row():
            look: dict[str, Any] = {"height": 240, "min_width": 220, "elem_classes": "small"}
            small = [
                gr.Image(label=title, interactive=False, buttons=["fullscreen"], **look)
                for title in ("probability", "changed pixels", "truth")
            ]
        energy = gr.LinePlot(
            x="iteration",
            y="nats per pixel",
            color="quantity",
            sort=list(map(str, range(100))),
            y_title="nats per pixel",
            color_title="energy at half resolution",
            height=260,
            elem_id="energy",
        )
        copied: dict[str, Any] = {"interactive": False, "show_line_numbers": False, "lines": 1}
        python = gr.Code(
            label="Python", language="python", elem_id="python", buttons=["copy"], **copied
        )
        shell = gr.Code(
            label="command line", language="shell", elem_id="commands", buttons=["copy"], **copied
        )
        controls = [by_name[name] for name in LINE_OPTIONS]
        inputs = [image, shown, *controls]
        views = [comparison, words, key, *small]
        outputs = [*views, energy, python, shell]
        nothing = (gr.skip(),) * len(outputs)
        latest: defaultdict[str | None, int] = defaultdict(int)  # requests of each session

        def preview(request: gr.Request, name: str, label: str, *values: Any) -> tuple[Any, ...]:
            latest[request.session_hash] += 1
            return explorer.pictures(name, label, list(values), preview=True)

        def settled(
            request: gr.Request, name: str, label: str, *values: Any
        ) -> Iterator[tuple[Any, ...]]:
            number = latest[request.session_hash]
            time.sleep(SETTLE)
            if latest[request.session_hash] == number:
                yield from full(request, name, label, *values)
            else:
                yield nothing

        def full(
            request: gr.Request, name: str, label: str, *values: Any
        ) -> Iterator[tuple[Any, ...]]:
            latest[request.session_hash] += 1
            number = latest[request.session_hash]
            drawn = explorer.pictures(name, label, list(values))
            if latest[request.session_hash] == number:
                yield *drawn, gr.skip(), *explorer.lines(name, list(values))
            if latest[request.session_hash] == number:  # no other move is waiting
                energies = explorer.curve(name, list(values))
                yield *nothing[:-3], energies, gr.skip(), gr.skip()

        def choose_preset(name: str, *values: Any) -> list[Any]:
            now = setting_from(explorer.start, list(values))
            return values_of(with_preset(explorer.start, now, name))

        quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
        sliders = [c for c in controls if isinstance(c, gr.Slider)]
        menus = [c for c in controls if not isinstance(c, gr.Slider)]
        gr.on([s.input for s in sliders], preview, inputs, views, **quiet).then(
            settled, inputs, outputs, **quiet
        )
        gr.on([c.input for c in (image, shown, *menus)], full, inputs, outputs, **quiet)
        preset.input(choose_preset, [preset, *controls], controls, **quiet).then(
            full, inputs, outputs, **quiet
        )
        page.load(full, inputs, outputs, show_progress="hidden")
    return page


def serve(page: gr.Blocks, host: str, port: int | None) -> str:
    """Start serving in the background, and return the address.

    Raises:
        OSError: the port is taken.
    """
    # The fonts of the reader's system: nothing is fetched.
    theme = gr.themes.Base(
        primary_hue="slate", neutral_hue="slate", radius_size="sm", spacing_size="sm",
        text_size="md", font=FONT, font_mono=MONO,
    ).set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300"
    )  # fmt: skip
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            theme=theme,
            css=CSS,
        )
    except OSError as error:
        raise OSError(
            f"the page cannot be served at {host}, port {port or 'any'}: pass a --port that is "
            "free, and a --host of this machine."
        ) from error
    return address


# `python -m eval explore`

LEARNT = "The checkpoint's CRF has learnt matrices; here it has their mean weights, and Potts."


@dataclass(frozen=True)
class ExploreOptions:
    """Move the numbers of a CRF on a local page, and see what changes.

    The page needs no network, and nobody else can reach it unless --host says so.

    Attributes:
        source: a checkpoint, NAME.npz, or a folder of these (`python -m eval predict --write
            probabilities`).
        images: files and folders; with --split, names of its images, or none for all.
        split: take the images and their truth from this split of the checkpoint's data set.
        truth: masks of class ids, one for each image in order.
        data_root: where the data set lies now, if not where it was trained.
        host: the address to listen at; 0.0.0.0 opens the page to the network.
        port: the port; the first free one from 7860 on if not given.
        device: of the network; the CRF runs on the CPU.
    """

    source: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    split: Split | None = None
    truth: tuple[Path, ...] = ()
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    host: str = "127.0.0.1"
    port: int | None = None
    device: DeviceName = "auto"


def explorer_of(options: ExploreOptions) -> Explorer:
    """Load what the page shows.

    Raises:
        FileNotFoundError: no checkpoint, probabilities or image.
        ValueError: they do not fit each other.
    """
    of_maps = options.source.is_dir() and not weights_file(options.source).is_file()
    if of_maps or options.source.suffix == ".npz":
        if options.split is not None:
            raise ValueError("--split needs a checkpoint: pass masks of probabilities as --truth.")
        scenes = of_probabilities(options.source, options.images, options.truth)
        return Explorer(scenes, POST_HOC, "CHECKPOINT")
    checkpoint = read_checkpoint(options.source)
    segmenter = load_segmenter(checkpoint)
    start = setting_of(segmenter)
    note = "" if is_scalar(segmenter.config.crf) else LEARNT
    segmenter = segmenter.with_crf(None).to(device_named(options.device))
    if options.split is None:
        labels = labels_of(checkpoint, options.data_root)
        scenes = of_network(segmenter, labels, options.images, options.truth)
    else:
        if options.truth:
            raise ValueError("--split has its own truth: leave --truth out.")
        dataset = split_of(checkpoint["data"], options.split, options.data_root)
        scenes = of_split(segmenter, dataset, options.images)
    return Explorer(scenes, start, str(options.source), note)


def explore_command(arguments: list[str]) -> None:
    """Parse the command line, and serve until the page is stopped."""
    options = tyro.cli(ExploreOptions, prog="python -m eval explore", args=arguments)
    page = build_page(explorer_of(options))
    address = serve(page, options.host, options.port)
    print(f"open {address} in a browser; Ctrl+C ends it")
    page.block_thread()
