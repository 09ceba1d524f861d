"""Square matrices over the labels as heat maps of their change from where they started."""

from __future__ import annotations

from collections.abc import Sequence

from eval import svg

Matrix = Sequence[Sequence[float]]

STRONGEST = 0.75
"""Opacity of the largest change: the number in the cell stays readable on it."""

MOST_LABELS_WITH_NUMBERS = 10
"""Beyond this the numbers do not fit their cells; they still appear under the pointer."""


def heat_map(
    title: str, matrix: Matrix, centre: Matrix, names: Sequence[str], centre_name: str
) -> str:
    """A matrix, coloured by its difference to another one.

    The colour's opacity is the size of the change, relative to the largest in this matrix, so that
    "unchanged" has the colour of the page, light or dark.

    Args:
        title: what the matrix is.
        matrix: (L, L) values.
        centre: (L, L) values that count as no change.
        names: L label names.
        centre_name: what `centre` is, as in "change from Potts".

    Returns:
        Inline SVG.

    Raises:
        ValueError: the sizes do not agree.
    """
    size = len(names)
    for what, values in (("matrix", matrix), ("centre", centre)):
        if [len(row) for row in values] != [size] * size:
            raise ValueError(f"{title}: expected a {size} x {size} {what} for {size} label names")
    change = [
        [a - b for a, b in zip(*rows, strict=True)] for rows in zip(matrix, centre, strict=True)
    ]
    largest = max(abs(value) for row in change for value in row)
    side = 340.0
    cell = side / size
    font = min(11.0, 0.8 * cell)
    margin = 14 + 0.58 * font * max(map(len, names))
    marks = [svg.text(0, 10, title, "name"), svg.text(0, 28, _scale(largest, centre_name), "tick")]
    top = 40 + margin
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        turn = f"translate({margin + middle:.1f} {top - 8:.1f}) rotate(-90)"
        at_row = svg.text(margin - 8, top + middle, name, "label", "end")
        at_column = svg.element("g", {"transform": turn}, svg.text(0, 0, name, "label"))
        marks.append(svg.element("g", {"font-size": font}, at_row, at_column))
    for row in range(size):
        for column in range(size):
            x, y = margin + column * cell, top + row * cell
            delta = change[row][column]
            start = centre[row][column]
            hint = (
                f"{names[row]}, {names[column]}: {matrix[row][column]:.4g} "
                f"({centre_name} {start:.4g}, change {delta:+.3g})"
            )
            marks.append(_cell(x, y, cell, delta / largest if largest else 0.0, hint))
            if size <= MOST_LABELS_WITH_NUMBERS and abs(delta) >= 0.005:
                marks.append(svg.text(x + cell / 2, y + cell / 2, _short(delta), "cell", "middle"))
    return svg.picture(
        margin + side + 1, top + side + 1, f"{title}: {_scale(largest, centre_name)}", *marks
    )


def _cell(x: float, y: float, side: float, strength: float, hint: str) -> str:
    """A square; strength -1..1 chooses the hue by its sign and the opacity by its size."""
    box: dict[str, str | float] = {"x": x, "y": y, "width": side, "height": side}
    hue = "rise" if strength > 0 else "fall"
    title = svg.element("title", {}, svg.escaped(hint))
    fill = {**box, "class": f"square {hue}", "fill-opacity": STRONGEST * abs(strength)}
    return svg.element("rect", fill, title)


def _scale(largest: float, centre_name: str) -> str:
    if largest == 0:
        return f"same as {centre_name}"
    return f"change from {centre_name}, strongest {largest:.3g}"


def _short(value: float) -> str:
    """Two decimals without the leading zero, three characters more or less: +.12, −1.5."""
    digits = f"{abs(value):.2f}" if abs(value) < 10 else f"{abs(value):.1f}"
    return f"{'+' if value > 0 else '−'}{digits.removeprefix('0')}"
