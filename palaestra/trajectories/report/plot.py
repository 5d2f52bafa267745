"""A chart with axes: lines, bands, points with whiskers, and a hover column per x. Colours are CSS classes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from palaestra.trajectories.report.markup import Markup, number, render, tag
from palaestra.trajectories.report.scale import Scale, percent, tick_label

Values = Sequence[float | None]
"""One value per x; `None` makes a gap."""

MAX_HOVER_COLUMNS = 240


@dataclass(frozen=True, slots=True)
class Margin:
    """Room around the plotting area, in the units of the view box."""

    top: float = 14
    right: float = 14
    bottom: float = 38
    left: float = 48


@dataclass(slots=True)
class Plot:
    """One chart; layers are drawn in the order in which they are added."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    title: str
    """What it shows, for those who cannot see it."""
    x_label: str = "iteration"
    y_label: str = ""
    percent: bool = False
    """The y axis is a share."""
    margin: Margin = field(default_factory=Margin)
    layers: list[Markup] = field(default_factory=list)

    @property
    def x_scale(self) -> Scale:
        """Data to view box, horizontally."""
        return Scale(*self.x, self.margin.left, self.width - self.margin.right)

    @property
    def y_scale(self) -> Scale:
        """Data to view box, vertically (up is more)."""
        return Scale(*self.y, self.height - self.margin.bottom, self.margin.top)

    def line(self, xs: Sequence[float], ys: Values, class_: str) -> None:
        """A polyline with gaps where values are unknown; a lone point between gaps becomes a dot."""
        steps: list[str] = []
        for index, (x, y) in enumerate(zip(xs, ys, strict=True)):
            if y is not None:
                joined = index > 0 and ys[index - 1] is not None
                steps.append(f"{'L' if joined else 'M'}{self._at(x, y)}")
        known = sum(y is not None for y in ys)
        if known:
            self.layers.append(tag("path", d="".join(steps), class_=f"line {class_}", fill="none", data_points=known))
        if known == 1:
            self.dots(xs, ys, class_)

    def band(self, xs: Sequence[float], low: Values, high: Values, class_: str) -> None:
        """The area between two lines, where both are known."""
        known = [(x, a, b) for x, a, b in zip(xs, low, high, strict=True) if a is not None and b is not None]
        if len(known) > 1:
            upper = [self._at(x, b) for x, _, b in known]
            lower = [self._at(x, a) for x, a, _ in reversed(known)]
            self.layers.append(tag("path", d=f"M{'L'.join(upper + lower)}Z", class_=f"band {class_}"))

    def dots(self, xs: Sequence[float], ys: Values, class_: str) -> None:
        """Small circles."""
        for x, y in zip(xs, ys, strict=True):
            if y is not None:
                self.layers.append(tag("circle", cx=self.x_scale(x), cy=self.y_scale(y), r=2.5, class_=f"dot {class_}"))

    def whisker(self, x: float, y: float, low: float, high: float, class_: str, tip: str) -> None:
        """A point with its interval."""
        at, top, bottom = self.x_scale(x), self.y_scale(high), self.y_scale(low)
        stem = f"M{number(at)} {number(top)}V{number(bottom)}"
        caps = "".join(f"M{number(at - 4)} {number(end)}h8" for end in (top, bottom))
        self.layers.append(
            tag(
                "g",
                tag("path", d=stem + caps, class_="stem", fill="none"),
                tag("circle", cx=at, cy=self.y_scale(y), r=4.5),
                class_=f"whisker {class_}",
                data_tip=tip,
            )
        )

    def level(self, y: float, class_: str, label: str) -> None:
        """A horizontal line across the chart with its name at the right end."""
        at, left, right = self.y_scale(y), self.x_scale.start, self.x_scale.end
        self.layers.append(tag("path", d=f"M{number(left)} {number(at)}H{number(right)}", class_=f"level {class_}"))
        self.layers.append(tag("text", label, x=right - 4, y=at - 5, text_anchor="end", class_="level-label"))

    def hover(self, xs: Sequence[float], tip: Callable[[int], str]) -> None:
        """Invisible columns that show `tip(index)` and a hair line while the pointer is over them."""
        stride = -(-len(xs) // MAX_HOVER_COLUMNS) or 1
        kept = list(range(0, len(xs), stride))
        middles = [(self.x_scale(xs[a]) + self.x_scale(xs[b])) / 2 for a, b in itertools.pairwise(kept)]
        edges = [self.x_scale.start, *middles, self.x_scale.end]
        top, height = self.y_scale.end, self.y_scale.start - self.y_scale.end
        for place, index in enumerate(kept):
            box = {"x": edges[place], "y": top, "width": edges[place + 1] - edges[place], "height": height}
            hair = f"M{number(self.x_scale(xs[index]))} {number(top)}v{number(height)}"
            area = tag("rect", **box, class_="hit")
            self.layers.append(tag("g", area, tag("path", d=hair), class_="hover", data_tip=tip(index)))

    def svg(self, *, x_whole: bool = True, x_ticks: int = 8, y_ticks: int = 5) -> Markup:
        """The chart as an element that scales with its container."""
        grid = [self._y_tick(value) for value in self.y_scale.ticks(y_ticks)]
        below = [self._x_tick(value) for value in self.x_scale.ticks(x_ticks, whole=x_whole)]
        return picture(self.width, self.height, self.title, grid, self.layers, below, self._labels())

    def _at(self, x: float, y: float) -> str:
        return f"{number(self.x_scale(x))} {number(self.y_scale(y))}"

    def _y_tick(self, value: float) -> Markup:
        at, left, right = self.y_scale(value), self.x_scale.start, self.x_scale.end
        label = percent(value) if self.percent else tick_label(value)
        return render(
            tag("path", d=f"M{number(left)} {number(at)}H{number(right)}", class_="axis" if value == 0 else "grid"),
            tag("text", label, x=left - 7, y=at + 4, text_anchor="end", class_="tick"),
        )

    def _x_tick(self, value: float) -> Markup:
        at, bottom = self.x_scale(value), self.y_scale.start
        return render(
            tag("path", d=f"M{number(at)} {number(bottom)}v4", class_="axis"),
            tag("text", tick_label(value), x=at, y=bottom + 17, text_anchor="middle", class_="tick"),
        )

    def _labels(self) -> Markup:
        middle = (self.x_scale.start + self.x_scale.end) / 2
        return render(
            tag("text", self.x_label, x=middle, y=self.height - 5, text_anchor="middle", class_="label"),
            tag("text", self.y_label, x=self.x_scale.start, y=self.margin.top - 8, class_="label")
            if self.y_label
            else None,
        )


def picture(width: float, height: float, title: str, *children: object) -> Markup:
    """An SVG that is as wide as its container."""
    box = f"0 0 {number(width)} {number(height)}"
    return tag("svg", *children, viewBox=box, role="img", aria_label=title)  # type: ignore[arg-type]


def legend(*entries: tuple[str, str]) -> Markup:
    """Names of the classes of a chart: (class, text) each."""
    items = [tag("li", tag("i", class_=f"swatch {class_}"), text) for class_, text in entries]
    return tag("ul", items, class_="legend")


def moving_mean(values: Values, window: int) -> list[float | None]:
    """Centred mean over up to `window` known neighbours; at the ends over those that exist."""
    smooth: list[float | None] = []
    for index in range(len(values)):
        near = [v for v in values[max(0, index - window // 2) : index + window // 2 + 1] if v is not None]
        smooth.append(sum(near) / len(near) if near else None)
    return smooth
