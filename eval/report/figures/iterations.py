"""What the CRF's iterations do: energy, divergence, change of q."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from eval.report.comparison import Comparison
from eval.report.figures.canvas import COLOURS, WITH_CRF, Undrawable, panels
from eval.report.reading import Values

PANELS = {
    "relaxed_energy": "energy per pixel",
    "kl": "KL to the posterior + constant",
    "largest_change": "largest change of q",
}


def iterations(comparison: Comparison) -> Figure:
    """Energies (of q, and of its labelling: dashed), KL(q || p) up to log Z, and change of q.

    Of the report split's first image, a line for each arm and seed.

    Raises:
        Undrawable: no arm has logged its iterations.
    """
    traces = {arm: _traces(comparison, arm) for arm in WITH_CRF}
    present = {arm: found for arm, found in traces.items() if found}
    if not present:
        raise Undrawable("No metrics.jsonl holds the iterations of a CRF.")
    figure, axes = panels(1020, 300, 1, len(PANELS))
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        for arm, of_arm in present.items():
            for number, trace in enumerate(of_arm):
                _line(axis, trace, key, arm, "-", arm if number == 0 else None)
                if key == "relaxed_energy":
                    _line(axis, trace, "discrete_energy", arm, (0, (2, 2)), None)
        axis.set_title(title)
        axis.set_xlabel("iteration")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid(visible=False, axis="x")
    axes[-1].set_yscale("log")
    axes[-1].yaxis.set_major_formatter("{x:g}")  # the default writes formulas
    axes[-1].yaxis.set_minor_formatter(NullFormatter())
    axes[-1].legend(labelcolor="linecolor")
    return figure


def _traces(comparison: Comparison, arm: str) -> list[list[Values]]:
    """The last trace that each seed's metrics.jsonl holds whole."""
    wanted = {"iteration", "discrete_energy", *PANELS}
    found = []
    for run in comparison.of(arm):
        traces = [line.get("crf/iterations") for line in run.history]
        whole = [trace for trace in traces if trace and all(wanted <= row.keys() for row in trace)]
        found += whole[-1:]
    return found


def _line(
    axis: Axes, trace: list[Values], key: str, arm: str, dashes: object, label: str | None
) -> None:
    # q_0 has not changed from anything.
    rows = trace[1:] if key == "largest_change" else trace
    axis.plot(
        [row["iteration"] for row in rows], [row[key] for row in rows], color=COLOURS[arm],
        linestyle=dashes, linewidth=1.8, label=label,
    )  # fmt: skip
