"""Pictures of the study as SVG files that need nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.learning.results import Record, mean_curve
from palaestra.evaluation.aggregate import Estimate
from palaestra.trajectories.report.markup import Markup, number, render, tag
from palaestra.trajectories.report.plot import Margin, Plot, moving_mean, picture
from palaestra.trajectories.report.scale import Scale, extent, percent, viridis

COLOURS = {
    "grpo": "#000000",
    "bonus": "#8a8f98",
    "epo": "#0072b2",
    "empg": "#d55e00",
    "aepo-update": "#56b4e9",
    "aepo": "#009e73",
    "spear": "#cc79a7",
    "arpo": "#e69f00",
}
STYLE = """svg{font:12px system-ui,sans-serif;background:#fff}text{fill:#555}.grid{stroke:#e8e8e8}.axis{stroke:#999}
path{fill:none}.line{stroke-width:2;stroke-linejoin:round}.whisker{stroke-width:2}.name{font-weight:600}"""
WINDOW = 5
"""Iterations of the moving mean."""
LEGEND = 120.0
"""Width kept free for it at the right."""


def curves(settings: Mapping[str, Sequence[Record]], key: str, title: str, *, share: bool = False) -> str:
    """A metric over training, one line a setting: mean of its runs, smoothed."""
    lines = {name: moving_mean(mean_curve(records, key), WINDOW) for name, records in settings.items()}
    longest = max(map(len, lines.values()))
    limits = (0.0, 1.0) if share else extent(value for line in lines.values() for value in line)
    plot = Plot(760, 340, (0.0, float(longest - 1)), limits, title, y_label=title, percent=share)
    plot.margin = Margin(top=24, right=LEGEND)
    for name, line in lines.items():
        plot.line([float(i) for i in range(len(line))], line, f"s-{name}")
    return _file(_with(plot.svg(), _legend(list(lines), 760 - LEGEND + 16, 40)))


def intervals(rows: Mapping[str, Estimate], title: str, *, share: bool = True) -> str:
    """An estimate with its interval, one row a setting."""
    slot, width, left = 26.0, 760.0, 110.0
    height = slot * len(rows) + 52
    low, high = extent([v for row in rows.values() for v in (row.low, row.high)], zero=False)
    x = Scale(low, high, left, width - 24)
    bottom = height - 30
    marks = [
        render(
            tag("path", d=f"M{number(x(v))} 22V{number(bottom)}", class_="grid"),
            tag("text", percent(v) if share else f"{v:g}", x=x(v), y=bottom + 16, text_anchor="middle"),
        )
        for v in x.ticks(8)
    ]
    drawn = [_interval(name, row, x, 22 + slot * (i + 0.5)) for i, (name, row) in enumerate(rows.items())]
    return _file(picture(width, height, title, tag("text", title, x=left, y=14), marks, drawn))


def heatmaps(settings: Mapping[str, Sequence[Record]], title: str) -> str:
    """Entropy by turn (upwards) over training (to the right), one tile a setting, all in the same colours."""
    grids = {name: _mean_grid(records) for name, records in settings.items()}
    top = max(float(np.nanmax(grid)) for grid in grids.values())
    across, width, height, gap = 4, 168.0, 110.0, 22.0
    tiles = [
        _tile(name, grid, top, 10 + (i % across) * (width + gap), 40 + (i // across) * (height + 44), width, height)
        for i, (name, grid) in enumerate(grids.items())
    ]
    rows = -(-len(grids) // across)
    head = tag("text", f"{title}: dark 0, bright {top:.2f} nats; turns upwards, iterations to the right", x=10, y=16)
    return _file(picture(10 + across * (width + gap), 40 + rows * (height + 44), title, head, tiles))


def _interval(name: str, row: Estimate, x: Scale, y: float) -> Markup:
    line = f"M{number(x(row.low))} {number(y)}H{number(x(row.high))}"
    return render(
        tag("text", name, x=x.start - 10, y=y + 4, text_anchor="end", class_="name"),
        tag("path", d=line, class_=f"whisker s-{name}"),
        tag("circle", cx=x(row.value), cy=y, r=4.5, style=f"fill:{COLOURS.get(name, '#333')}"),
    )


def _mean_grid(records: Sequence[Record]) -> np.ndarray:
    """[iterations, turns], mean over runs; NaN where no run has one."""
    runs = [record["iterations"]["entropy_by_turn"] for record in records]
    grid = np.full((len(runs), max(map(len, runs)), max(len(row) for run in runs for row in run)), np.nan)
    for i, run in enumerate(runs):
        for j, row in enumerate(run):
            grid[i, j, : len(row)] = [np.nan if value is None else value for value in row]
    known = (~np.isnan(grid)).sum(0)
    return np.where(known > 0, np.nansum(grid, 0) / np.maximum(known, 1), np.nan)


def _tile(name: str, grid: np.ndarray, top: float, left: float, up: float, width: float, height: float) -> Markup:
    columns, turns = grid.shape
    w, h = width / columns, height / turns
    cells = [
        tag("rect", x=left + i * w, y=up + height - (t + 1) * h, width=w + 0.3, height=h + 0.3, fill=viridis(v / top))
        for i in range(columns)
        for t in range(turns)
        if not np.isnan(v := float(grid[i, t]))
    ]
    return render(tag("text", name, x=left, y=up - 6, class_="name"), cells)


def _legend(names: Sequence[str], x: float, y: float) -> Markup:
    entries = [
        render(
            tag("path", d=f"M{number(x)} {number(y + 18 * i)}h18", class_=f"line s-{name}"),
            tag("text", name, x=x + 24, y=y + 18 * i + 4),
        )
        for i, name in enumerate(names)
    ]
    return render(entries)


def _with(svg: Markup, more: Markup) -> Markup:
    return Markup(svg.removesuffix("</svg>") + more + "</svg>")


def _file(svg: Markup) -> str:
    colours = "".join(f".s-{name}{{stroke:{colour}}}" for name, colour in COLOURS.items())
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    return svg.replace("<svg ", head, 1).replace(">", f"><style>{STYLE}{colours}</style>", 1) + "\n"
