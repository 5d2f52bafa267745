"""Entropy by turn index over training, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palaestra.trajectories.report.markup import Markup, number, render, tag
from palaestra.trajectories.report.plot import Margin, picture
from palaestra.trajectories.report.run import Run, numeric
from palaestra.trajectories.report.scale import Scale, extent, tick_label, viridis

MAX_COLUMNS = 96
MAX_TURNS = 64

_WIDTH, _HEIGHT = 680.0, 340.0
_MARGIN = Margin(top=18, right=74, bottom=38, left=44)


@dataclass(frozen=True, slots=True)
class Cells:
    """Mean entropies on a grid."""

    first: list[float]
    """Iteration at which each column begins."""
    end: float
    """Where the last column ends."""
    values: list[list[float | None]]
    """Nats, `[column][turn]`."""

    @property
    def turns(self) -> int:
        """Rows of the grid."""
        return max(map(len, self.values))


def entropy_heatmap(run: Run) -> Markup | None:
    """The picture with its colour scale; `None` if the run did not measure entropies."""
    cells = _cells(run)
    if cells is None:
        return None
    _, high = extent(value for column in cells.values for value in column)
    x = Scale(cells.first[0], cells.end, _MARGIN.left, _WIDTH - _MARGIN.right)
    y = Scale(0, cells.turns, _HEIGHT - _MARGIN.bottom, _MARGIN.top)
    drawn = tag("g", _rects(cells, x, y, high), class_="cells")
    title = "Mean entropy by turn and iteration"
    return picture(_WIDTH, _HEIGHT, title, drawn, _axes(cells, x, y), _colour_bar(high, y))


def _cells(run: Run) -> Cells | None:
    rows = [(row["iteration"], _turns(row.get("entropy_by_turn"))) for row in run.train]
    rows = [(iteration, values) for iteration, values in rows if any(v is not None for v in values)]
    if not rows:
        return None
    stride = -(-len(rows) // MAX_COLUMNS)
    bins = [rows[start : start + stride] for start in range(0, len(rows), stride)]
    return Cells(
        first=[float(members[0][0]) for members in bins],
        end=float(rows[-1][0]) + 1.0,
        values=[_mean([values for _, values in members]) for members in bins],
    )


def _turns(value: object) -> list[float | None]:
    return [numeric(v) for v in value[:MAX_TURNS]] if isinstance(value, list) else []


def _mean(columns: Sequence[list[float | None]]) -> list[float | None]:
    """Turn by turn over the iterations of one column."""
    mean: list[float | None] = []
    for turn in range(max(map(len, columns))):
        known = [v for column in columns if turn < len(column) and (v := column[turn]) is not None]
        mean.append(sum(known) / len(known) if known else None)
    return mean


def _rects(cells: Cells, x: Scale, y: Scale, high: float) -> list[Markup]:
    height = (y.start - y.end) / cells.turns
    rects = []
    for index, column in enumerate(cells.values):
        start = cells.first[index]
        end = cells.first[index + 1] if index + 1 < len(cells.first) else cells.end
        name = f"iteration {start:g}" if end - start <= 1 else f"iterations {start:g}–{end - 1:g}"
        left, width = x(start), x(end) - x(start)
        for turn, value in enumerate(column):
            if value is not None:
                box = {"x": left, "y": y(turn + 1), "width": width + 0.4, "height": height + 0.4}
                tip = f"{name}, turn {turn + 1}\n{value:.3f} nats"
                rects.append(tag("rect", **box, fill=viridis(value / high), data_tip=tip))
    return rects


def _axes(cells: Cells, x: Scale, y: Scale) -> Markup:
    row = (y.start - y.end) / cells.turns
    step = max(1, -(-cells.turns // 10))
    left = [
        tag("text", turn + 1, x=x.start - 7, y=y(turn) - row / 2 + 4, text_anchor="end", class_="tick")
        for turn in range(0, cells.turns, step)
    ]
    below = [
        tag("text", tick_label(value), x=x(value), y=y.start + 17, text_anchor="middle", class_="tick")
        for value in x.ticks(8, whole=True)
    ]
    middle = (x.start + x.end) / 2
    return render(
        left,
        below,
        tag("text", "iteration", x=middle, y=_HEIGHT - 5, text_anchor="middle", class_="label"),
        tag("text", "turn", x=x.start, y=_MARGIN.top - 7, text_anchor="end", class_="label"),
    )


def _colour_bar(high: float, y: Scale) -> Markup:
    left, steps = _WIDTH - 56, 40
    bar = Scale(0, high, y.start, y.end)
    height = (y.start - y.end) / steps
    slices = [
        tag(
            "rect", x=left, y=y.start - (k + 1) * height, width=12, height=height + 0.4, fill=viridis((k + 0.5) / steps)
        )
        for k in range(steps)
    ]
    labels = [
        render(
            tag("path", d=f"M{number(left + 12)} {number(bar(value))}h4", class_="axis"),
            tag("text", tick_label(value), x=left + 19, y=bar(value) + 4, class_="tick"),
        )
        for value in bar.ticks(5)
    ]
    return tag("g", slices, labels, tag("text", "nats", x=left, y=y.end - 7, class_="label"), class_="colour-bar")
