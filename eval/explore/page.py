"""The page itself: gradio's controls around `view` and `markup`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from eval.explore import markup
from eval.explore.controls import (
    MENUS,
    RANGES,
    START,
    Menu,
    Range,
    preset_names,
    setting_from,
    values_of,
    with_preset,
)
from eval.explore.refinery import Refinery, preview_of
from eval.explore.scene import Scene, Scenes
from eval.explore.view import view
from eval.prediction_files import overlay
from eval.setting_lines import code, predict_line, train_line
from models import CrfConfig
from models.crf import build_crf

SETTLE = 0.15  # seconds without a move before the full view is computed
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


class Explorer:
    """What the page asks for; holds the scenes, and which request of a session is the latest.

    Args:
        scenes: what can be looked at.
        start: the setting that the page opens with.
        checkpoint: for the command line.
        note: a sentence under the title, or nothing.
    """

    def __init__(self, scenes: Scenes, start: CrfConfig, checkpoint: str, note: str = "") -> None:
        self.scenes = scenes
        self.start = start
        self.checkpoint = checkpoint
        self.note = note
        self.refinery = Refinery()
        self.classes = next(iter(scenes.sources.values())).labels.classes
        self._latest: dict[str, int] = {}

    def arrived(self, session: str) -> int:
        """Count a request; older ones of the session are out of date."""
        self._latest[session] = self._latest.get(session, 0) + 1
        return self._latest[session]

    def latest(self, session: str) -> int:
        """The number of the session's last request."""
        return self._latest.get(session, 0)

    def pictures(
        self, name: str, label: str, values: list[Any], *, preview: bool = False
    ) -> tuple[str, str]:
        """The large picture and the small ones, or in words why there are none."""
        try:
            scene = self.scenes[name]
        except (ValueError, OSError) as error:
            return markup.error(str(error)), ""
        try:
            setting = setting_from(self.start, values)
            shown = view(self.refinery, scene, setting, label, preview=preview)
        except ValueError as error:
            return markup.error(str(error)) + markup.alone(self.before(scene)), ""
        return markup.main(shown, preview=preview), markup.side(shown, scene.labels, label)

    def curve(self, name: str, values: list[Any]) -> str:
        """The energy of every iteration; nothing where `pictures` says what is wrong."""
        try:
            setting = setting_from(self.start, values)
            energies = self.refinery.energies(self.scenes[name], setting)
            return markup.curve(energies, preview_of(setting).resolution)
        except (ValueError, OSError):
            return ""

    def lines(self, name: str, values: list[Any]) -> tuple[str, str]:
        """What can be pasted: code, and command lines."""
        try:
            setting = setting_from(self.start, values)
            build_crf(setting, len(self.classes))
        except ValueError as error:  # nothing to copy: `pictures` says it, too
            return f"# {error}", f"# {error}"
        try:
            train = train_line(setting)
        except ValueError as error:
            train = f"# no line for python -m train: {error}"
        commands = (
            f"{predict_line(setting, self.checkpoint, self.scenes.sources[name].path)}\n{train}"
        )
        return code(setting, len(self.classes)), commands

    @staticmethod
    def before(scene: Scene) -> Any:
        """The network's mask over the image."""
        return overlay(scene.pixels, scene.before, scene.labels.palette)


def build_page(explorer: Explorer) -> gr.Blocks:
    """The page, not yet served."""
    names = explorer.scenes.names
    first, label = names[0], first_label(explorer, names[0])
    values = values_of(explorer.start)
    page: gr.Blocks
    with gr.Blocks(title="crfrnn explore", analytics_enabled=False, fill_width=True) as page:
        with gr.Row(equal_height=False):
            with gr.Column(scale=0, min_width=310, elem_classes="ex-controls"):
                note = f'<p class="ex-learnt">{explorer.note}</p>' if explorer.note else ""
                gr.HTML(f'<div class="ex-title"><b>crfrnn</b><span>explore</span></div>{note}')
                image = gr.Dropdown(names, value=first, label="photograph", visible=len(names) > 1)
                preset = gr.Dropdown(preset_names(), value=START, label="preset")
                sliders = [
                    slider(control, getattr(explorer.start, control.name)) for control in RANGES
                ]
                shown = gr.Dropdown(list(explorer.classes), value=label, label="probability of")
                with gr.Accordion("filter, solver, resolution", open=False):
                    menus = [
                        menu(control, getattr(explorer.start, control.name)) for control in MENUS
                    ]
            large, small = explorer.pictures(first, label, values)
            layer, commands = explorer.lines(first, values)
            with gr.Column(scale=1):
                main = gr.HTML(large, elem_id="main")
                energy = gr.HTML(explorer.curve(first, values), elem_id="energy")
                gr.HTML('<h3 class="ex-heading">copy as preset</h3>')
                python = copied(layer, "python", "Python", "python")
                shell = copied(commands, "shell", "command line", "commands")
            with gr.Column(scale=0, min_width=250):
                side = gr.HTML(small, elem_id="side")
        controls = [image, shown, *sliders, *menus]
        outputs = [main, side, energy, python, shell]

        def preview(request: gr.Request, name: str, label: str, *values: Any) -> tuple[str, str]:
            explorer.arrived(str(request.session_hash))
            return explorer.pictures(name, label, list(values), preview=True)

        def settled(
            request: gr.Request, name: str, label: str, *values: Any
        ) -> Iterator[tuple[Any, ...]]:
            session = str(request.session_hash)
            number = explorer.latest(session)
            time.sleep(SETTLE)
            if explorer.latest(session) == number:
                yield from full(request, name, label, *values)
            else:
                yield (gr.skip(),) * len(outputs)

        def full(
            request: gr.Request, name: str, label: str, *values: Any
        ) -> Iterator[tuple[Any, ...]]:
            session = str(request.session_hash)
            number = explorer.arrived(session)
            drawn = explorer.pictures(name, label, list(values))
            if explorer.latest(session) != number:
                yield (gr.skip(),) * len(outputs)
                return
            yield *drawn, gr.skip(), *explorer.lines(name, list(values))
            if explorer.latest(session) != number:
                return  # another move is waiting
            energies = explorer.curve(name, list(values))
            yield gr.skip(), gr.skip(), energies, gr.skip(), gr.skip()

        def chosen_preset(name: str, *values: Any) -> list[Any]:
            return values_of(
                with_preset(explorer.start, setting_from(explorer.start, values), name)
            )

        quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
        gr.on([s.input for s in sliders], preview, controls, [main, side], **quiet).then(
            settled, controls, outputs, **quiet
        )
        gr.on([c.input for c in (image, shown, *menus)], full, controls, outputs, **quiet)
        preset.input(chosen_preset, [preset, *sliders, *menus], [*sliders, *menus], **quiet).then(
            full, controls, outputs, **quiet
        )
    return page


def first_label(explorer: Explorer, name: str) -> str:
    """The class, beside the first, that the network sees most of."""
    try:
        scene = explorer.scenes[name]
    except (ValueError, OSError):
        return explorer.classes[0]
    counts = np.bincount(scene.before.ravel(), minlength=len(explorer.classes))
    counts[0] = 0 if counts[1:].any() else 1
    return explorer.classes[int(counts.argmax())]


def slider(control: Range, value: float) -> gr.Slider:
    """A slider that reaches the value it begins with."""
    high = max(control.high, 1.5 * value)
    return gr.Slider(
        control.low,
        high,
        value,
        step=control.step,
        label=control.title,
        elem_id=control.name,
        buttons=[],
    )


def copied(text: str, language: Any, title: str, name: str) -> gr.Code:
    """Lines with a button that copies them."""
    return gr.Code(
        text, language, label=title, lines=2, wrap_lines=True, interactive=False, elem_id=name
    )


def menu(control: Menu, value: Any) -> gr.Dropdown:
    """A menu that has the value it begins with."""
    choices = list(control.choices)
    if value not in [v for _, v in choices]:
        choices.append((str(value), value))
    return gr.Dropdown(choices, value=value, label=control.title, elem_id=control.name)


def theme() -> gr.themes.Base:
    """Neutral, in the fonts of the reader's system: nothing is fetched."""
    return gr.themes.Base(
        primary_hue="slate", neutral_hue="slate", radius_size="sm", spacing_size="sm",
        text_size="sm", font=FONT, font_mono=MONO,
    )  # fmt: skip


def serve(page: gr.Blocks, host: str, port: int | None) -> str:
    """Start serving in the background; its address.

    Raises:
        OSError: the port is taken.
    """
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
            theme=theme(),
            css_paths=Path(__file__).with_name("style.css"),
        )
    except OSError as error:
        raise OSError(
            f"the page cannot be served at {host}, port {port or 'any'}: pass a --port that is "
            "free, and a --host of this machine."
        ) from error
    return address
