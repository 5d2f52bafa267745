"""The entropy-reward law of a run: which pairs it is fitted to, and its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from palaestra.trajectories.entropy_law import EntropyLaw, fit_entropy_law
from palaestra.trajectories.report.markup import Markup, render, tag
from palaestra.trajectories.report.plot import Plot, legend
from palaestra.trajectories.report.run import Proportion, Run, column, numeric
from palaestra.trajectories.report.scale import extent, percent

ENOUGH_EVALUATIONS = 8
"""From so many on the law is fitted to validation; below, to the success of the training episodes, which is noisier."""
_CURVE_POINTS = 60

Pairs = tuple[list[float | None], list[float | None], str]
"""Entropies, success rates beside them, and where the rates come from."""


def law_of(run: Run) -> EntropyLaw:
    """The fit to a run, or why there is none."""
    entropies, rewards, source = _pairs(run)
    return fit_entropy_law(entropies, rewards, source=source)


def law_chart(run: Run) -> Markup | None:
    """The pairs, the fitted curve and the predicted ceiling; `None` without a fit."""
    law = law_of(run)
    if law.ceiling is None:
        return None
    entropies, rewards, source = _pairs(run)
    pairs = [(h, r) for h, r in zip(entropies, rewards, strict=True) if h is not None and r is not None]
    right = extent([h for h, _ in pairs])[1]
    top = max(1.0, min(1.5, law.ceiling))
    title = "Success against entropy, with the fitted law"
    axes = {"x_label": "mean entropy (nats)", "y_label": "success rate", "percent": True}
    plot = Plot(680, 340, (0.0, right), (0.0, top), title, **axes)  # type: ignore[arg-type]
    if 0 <= law.ceiling <= top:
        plot.level(law.ceiling, "ceiling", f"predicted ceiling {percent(law.ceiling)}")
    plot.dots([h for h, _ in pairs], [r for _, r in pairs], "law-pair")
    plot.line(*_curve(law, right, top), "law strong")
    entries = (("law-pair", f"{source}, one iteration a point"), ("law", "b − a exp(H)"))
    return render(plot.svg(x_whole=False), legend(*entries))


def law_facts(law: EntropyLaw) -> Markup:
    """The fit in words, or why there is none."""
    if law.a is None or law.b is None or law.ceiling is None:
        return tag("p", f"No fit: {law.reason}.", class_="law-facts")
    fit = f"R = {law.b:.3f} {'−' if law.a >= 0 else '+'} {abs(law.a):.3f} exp(H)"
    quality = "" if law.r2 is None else f", which explains {percent(max(0.0, law.r2))} of the variance"
    trust = ""
    if law.a <= 0:
        trust = " Success did not fall with entropy in this run, so the ceiling says nothing."
    elif law.ceiling > 1:
        trust = " No rate can be above 100 %: entropy is not what limits this run."
    text = f"{fit} over {law.pairs} pairs{quality}; predicted ceiling b − a = {percent(law.ceiling)}.{trust}"
    return tag("p", text, class_="law-facts")


def _pairs(run: Run) -> Pairs:
    """The policy's entropy at an iteration is known from the episodes that it then played."""
    entropy = {row["iteration"]: numeric(row.get("entropy")) for row in run.train}
    points = [
        (entropy.get(row["iteration"]), rate.value)
        for row in run.evals
        if (rate := Proportion.read(row.get("success"))) is not None
    ]
    if sum(h is not None for h, _ in points) >= ENOUGH_EVALUATIONS:
        return [h for h, _ in points], [r for _, r in points], "validation success"
    return column(run.train, "entropy"), column(run.train, "success"), "training success"


def _curve(law: EntropyLaw, right: float, top: float) -> tuple[list[float], Sequence[float | None]]:
    """The law from H = 0 on; a gap where it leaves the chart."""
    xs = [right * i / _CURVE_POINTS for i in range(_CURVE_POINTS + 1)]
    ys = [law.reward(x) for x in xs]
    return xs, [y if math.isfinite(y) and 0 <= y <= top else None for y in ys]
