"""The learning curve: success in training, and evaluation points with their intervals."""

from __future__ import annotations

from typing import Any

from palaestra.trajectories.report.markup import Markup, render
from palaestra.trajectories.report.plot import Plot, legend, moving_mean
from palaestra.trajectories.report.run import Evaluation, Proportion, Run, column, numeric
from palaestra.trajectories.report.scale import percent


def learning_curve(run: Run, base: Evaluation | None) -> Markup | None:
    """The chart with its legend; `None` for a run without iterations."""
    points = [(row, rate) for row in run.evals if (rate := Proportion.read(row.get("success"))) is not None]
    if not run.train and not points:
        return None
    xs = [float(row["iteration"]) for row in run.train]
    last = max([*xs, *(float(row["iteration"]) for row, _ in points), 1.0])
    plot = Plot(680, 340, (0.0, last), (0.0, 1.0), "Success over training", y_label="success rate", percent=True)
    if base is not None:
        plot.level(base.success.value, "base", f"base model, held-out {percent(base.success.value)}")
    raw = column(run.train, "success")
    smooth = moving_mean(raw, window=max(3, len(raw) // 12))
    plot.line(xs, raw, "raw train")
    plot.line(xs, smooth, "train strong")
    plot.hover(xs, lambda i: _tip(run.train[i], smooth[i]))
    xs_eval = [float(row["iteration"]) for row, _ in points]
    plot.line(xs_eval, [rate.value for _, rate in points], "eval thin")
    for x, (row, rate) in zip(xs_eval, points, strict=True):
        plot.whisker(x, rate.value, rate.low, rate.high, "eval", _eval_tip(row, rate))
    entries = [("train", "training episodes, smoothed"), ("raw train", "each iteration")] if run.train else []
    entries += [("eval", "evaluation with 95 % interval")] if points else []
    return render(plot.svg(), legend(*entries))


def rate_text(rate: Proportion) -> str:
    """86 % (81–90 %, n=200)."""
    span = f"{percent(rate.low)}–{percent(rate.high)}" if rate.low < rate.high else "no interval"
    return f"{percent(rate.value)} ({span}, n={rate.n})"


def minutes(seconds: float) -> str:
    """0:45 min, 1:02:03 h."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}\u202fmin"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}\u202fh"


def _tip(row: dict[str, Any], smooth: float | None) -> str:
    lines = [f"iteration {row['iteration']:g}"]
    elapsed, success = numeric(row.get("elapsed")), numeric(row.get("success"))
    lines += [f"after {minutes(elapsed)}"] if elapsed is not None else []
    lines += [f"success {percent(success)}"] if success is not None else []
    lines += [f"smoothed {percent(smooth)}"] if smooth is not None else []
    return "\n".join(lines)


def _eval_tip(row: dict[str, Any], rate: Proportion) -> str:
    return f"{row.get('tag', 'evaluation')} at iteration {row['iteration']:g}\n{rate_text(rate)}"
