"""Agents side by side: bars with intervals, and a table of task types."""

from __future__ import annotations

from palaestra.trajectories.report.learning import rate_text
from palaestra.trajectories.report.markup import Markup, number, render, tag
from palaestra.trajectories.report.plot import picture
from palaestra.trajectories.report.run import Evaluation, Proportion
from palaestra.trajectories.report.scale import Scale, percent

_WIDTH, _LEFT, _RIGHT = 420.0, 92.0, 22.0
_HEIGHT, _TOP, _BOTTOM = 340.0, 14.0, 38.0

_CLASSES = {"random": "agent-random", "base model": "agent-base", "oracle": "agent-oracle"}


def agent_class(label: str, own: str) -> str:
    """CSS class that an agent has all over the page."""
    return _CLASSES.get(label.lower(), "agent-own" if label == own else "agent-other")


def comparison_bars(results: list[Evaluation], own: str) -> Markup | None:
    """One bar an agent; `None` if there is nothing to show."""
    if not results:
        return None
    x = Scale(0, 1, _LEFT, _WIDTH - _RIGHT)
    slot = (_HEIGHT - _TOP - _BOTTOM) / len(results)
    bars = [_bar(result, x, _TOP + index * slot, slot, own) for index, result in enumerate(results)]
    return picture(_WIDTH, _HEIGHT, "Held-out success of each agent", _grid(x), bars)


def kind_table(results: list[Evaluation], own: str) -> Markup | None:
    """Success by task type; `None` if no evaluation distinguishes them."""
    shown = [result for result in results if result.by_kind]
    kinds = sorted({kind for result in shown for kind in result.by_kind})
    if not kinds:
        return None
    head = tag("tr", tag("th", "task type"), [tag("th", result.label, class_="number") for result in shown])
    rows = [
        tag(
            "tr", tag("th", kind), [_cell(result.by_kind.get(kind), agent_class(result.label, own)) for result in shown]
        )
        for kind in kinds
    ]
    total = tag(
        "tr",
        tag("th", "all"),
        [_cell(result.success, agent_class(result.label, own)) for result in shown],
        class_="total",
    )
    table = tag("table", tag("thead", head), tag("tbody", rows, total), class_="kinds")
    return tag("div", table, class_="scroll")


def _grid(x: Scale) -> list[Markup]:
    bottom = _HEIGHT - _BOTTOM
    return [
        render(
            tag("path", d=f"M{number(x(v))} {number(_TOP)}V{number(bottom)}", class_="grid" if v else "axis"),
            tag("text", percent(v), x=x(v), y=bottom + 17, text_anchor="middle", class_="tick"),
        )
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]


def _bar(result: Evaluation, x: Scale, top: float, slot: float, own: str) -> Markup:
    rate, height = result.success, min(34.0, slot * 0.62)
    middle = top + slot / 2
    length = x(rate.value) - x.start
    whisker = f"M{number(x(rate.low))} {number(middle)}H{number(x(rate.high))}"
    caps = "".join(f"M{number(x(end))} {number(middle - 5)}v10" for end in (rate.low, rate.high))
    tip = "\n".join(filter(None, (result.label, rate_text(rate), result.suite, _side_figures(result))))
    inside = rate.low > 0.3
    value = tag(
        "text",
        percent(rate.value),
        x=x.start + 8 if inside else min(x(rate.high) + 8, x.end - 30),
        y=middle + 4.5,
        class_="bar-value inside" if inside else "bar-value",
    )
    return tag(
        "g",
        tag("text", _short(result.label), x=x.start - 9, y=middle + 4.5, text_anchor="end", class_="bar-name"),
        tag("rect", x=x.start, y=middle - height / 2, width=max(1.0, length), height=height, rx=3),
        tag("path", d=whisker + caps, class_="stem", fill="none"),
        value,
        class_=f"bar {agent_class(result.label, own)}",
        data_tip=tip,
    )


def _short(label: str) -> str:
    return label if len(label) <= 13 else label[:12] + "…"


def _side_figures(result: Evaluation) -> str:
    length = f"{result.length:.1f} turns" if result.length is not None else ""
    invalid = f"{percent(result.invalid_rate)} invalid actions" if result.invalid_rate is not None else ""
    return ", ".join(filter(None, (length, invalid)))


def _cell(rate: Proportion | None, class_: str) -> Markup:
    if rate is None:
        return tag("td", "–", class_="number")
    meter = tag("i", style=f"--share:{number(100 * rate.value)}%", class_=f"meter {class_}")
    return tag("td", meter, tag("span", percent(rate.value)), class_="number", data_tip=rate_text(rate))
