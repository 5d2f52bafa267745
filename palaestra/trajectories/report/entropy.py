"""Entropy over training: by outcome, and EPO's corridor with what it did."""

from __future__ import annotations

import dataclasses

from palaestra.trajectories.report.markup import Markup, render
from palaestra.trajectories.report.plot import Plot, Values, legend, moving_mean
from palaestra.trajectories.report.run import Run, column, numeric
from palaestra.trajectories.report.scale import extent, percent

Named = tuple[str, str, str]
"""Key in the metrics, CSS class, name on the page."""


def outcome_chart(run: Run) -> Markup | None:
    """Mean entropy of solved and of failed episodes; `None` if neither was measured."""
    return _lines(
        run,
        "Entropy by outcome",
        (("entropy_success", "good", "solved episodes"), ("entropy_failure", "bad", "failed episodes")),
        size=(420, 340),
        label="mean entropy (nats)",
        smooth=True,
    )


def corridor_chart(run: Run) -> Markup | None:
    """The reference, the corridor around it and the entropy that moves in it; `None` for runs without a corridor."""
    reference = column(run.train, "h_ref")
    if all(value is None for value in reference):
        return None
    xs = _iterations(run)
    low, high = column(run.train, "corridor_low"), column(run.train, "corridor_high")
    mean = column(run.train, "entropy")
    limits = extent([*mean, *reference, *low, *high])
    plot = Plot(680, 340, _span(xs), limits, "Entropy in EPO's corridor", y_label="entropy (nats)")
    plot.band(xs, low, high, "corridor")
    plot.line(xs, low, "corridor-edge")
    plot.line(xs, high, "corridor-edge")
    plot.line(xs, reference, "reference")
    plot.line(xs, mean, "entropy strong")
    names = {"mean": mean, "reference": reference, "low": low, "high": high}
    plot.hover(xs, lambda i: _tip(xs[i], {name: values[i] for name, values in names.items()}, "nats"))
    entries = [("entropy", "mean entropy"), ("reference", "reference (history)"), ("corridor", "corridor")]
    return render(plot.svg(), legend(*entries))


def outside_chart(run: Run) -> Markup | None:
    """Which share of the tokens the corridor held on to."""
    named = (("frac_below", "below", "below"), ("frac_above", "above", "above"))
    return _lines(
        run, "Tokens outside the corridor", named, size=(420, 340), label="share of sampled tokens", percent_axis=True
    )


def entropy_term(run: Run, key: str, name: str) -> Markup | None:
    """A small chart of `bonus`, `weighted` (the smoothing times its weight) or `beta`; `None` if not measured."""
    rows = [
        {**row, "bonus": row.get("entropy_bonus"), "weighted": _product(row.get("beta"), row.get("smoothing"))}
        for row in run.train
    ]
    named = ((key, key, name),)
    return _lines(dataclasses.replace(run, train=rows), name, named, size=(340, 170), named=False)


def vital(run: Run, key: str, name: str, *, share: bool = False) -> Markup | None:
    """A small chart of one metric; `None` if it was not measured."""
    return _lines(run, name, ((key, "vital", name),), size=(340, 170), percent_axis=share, smooth=True, named=False)


def _lines(
    run: Run,
    title: str,
    named_columns: tuple[Named, ...],
    *,
    size: tuple[float, float],
    label: str = "",
    percent_axis: bool = False,
    smooth: bool = False,
    named: bool = True,
) -> Markup | None:
    columns: dict[str, Values] = {name: column(run.train, key) for key, _, name in named_columns}
    everything = [value for values in columns.values() for value in values]
    if all(value is None for value in everything):
        return None
    xs = _iterations(run)
    plot = Plot(*size, _span(xs), extent(everything), title, y_label=label, percent=percent_axis)
    for _, class_, name in named_columns:
        if smooth:
            plot.line(xs, columns[name], f"raw {class_}")
        shown = moving_mean(columns[name], max(3, len(xs) // 12)) if smooth else columns[name]
        plot.line(xs, shown, f"{class_} strong")
    unit = "%" if percent_axis else ""
    plot.hover(xs, lambda i: _tip(xs[i], {name: values[i] for name, values in columns.items()}, unit))
    svg = plot.svg(x_ticks=5, y_ticks=5 if size[1] > 200 else 4)
    return render(svg, legend(*((class_, name) for _, class_, name in named_columns))) if named else svg


def _iterations(run: Run) -> list[float]:
    return [float(row["iteration"]) for row in run.train]


def _span(xs: list[float]) -> tuple[float, float]:
    return (min(xs, default=0.0), max(xs, default=1.0))


def _product(a: object, b: object) -> float | None:
    left, right = numeric(a), numeric(b)
    return None if left is None or right is None else left * right


def _tip(x: float, values: dict[str, float | None], unit: str) -> str:
    shown = [f"{name} {_value(value, unit)}" for name, value in values.items() if value is not None]
    return "\n".join([f"iteration {x:g}", *shown])


def _value(value: float, unit: str) -> str:
    return percent(value) if unit == "%" else f"{value:.4g} {unit}".rstrip()
