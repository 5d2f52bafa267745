import html
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.trajectories.report.markup import Markup, escape, number, tag
from palaestra.trajectories.report.plot import moving_mean
from palaestra.trajectories.report.scale import Scale, extent, percent, tick_label, viridis


def test_texts_and_attributes_are_escaped() -> None:
    assert tag("p", "</p><b>", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;">&lt;/p&gt;&lt;b&gt;</p>'


def test_attributes_are_named_as_in_html() -> None:
    assert tag("rect", data_tip="x", class_="bar", hidden=True, id=None, x=1.5) == (
        '<rect data-tip="x" class="bar" hidden x="1.5"></rect>'
    )
    assert tag("meta", charset="utf-8", name="a") == '<meta charset="utf-8" name="a">'


def test_children_are_flattened_and_markup_is_kept() -> None:
    assert tag("p", ["a", [Markup("<b></b>"), None]], 2, 0.5) == "<p>a<b></b>20.5</p>"


@given(st.text())
def test_escaping_keeps_the_text_and_lets_no_markup_through(text: str) -> None:
    escaped = escape(text)
    assert not set("<>\"'") & set(escaped)
    if text.isprintable():
        assert html.unescape(escaped) == text


def test_control_characters_and_lone_surrogates_are_replaced() -> None:
    assert escape("a\x00\x1b\ud800b") == "a\ufffd\ufffd\ufffdb"


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (1.255, "1.25"), (10.0, "10"), (0.001, "0"), (7, "7")])
def test_coordinates_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_scale_maps_and_clamps() -> None:
    scale = Scale(0, 10, 100, 0)
    assert [scale(v) for v in (0, 5, 10, 11, -1)] == [100, 50, 0, 0, 100]
    assert Scale(3, 3, 0, 10)(3) == 5


def test_ticks_are_round_and_inside() -> None:
    assert Scale(0, 0.83, 0, 1).ticks(5) == [0, 0.2, 0.4, 0.6, 0.8]
    assert Scale(0, 3, 0, 1).ticks(8, whole=True) == [0, 1, 2, 3]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_the_extent_holds_every_value(values: list[float]) -> None:
    low, high = extent(values)
    assert low < high
    slack = 1e-6 * max(map(abs, (*values, 1)))
    assert all(low - slack <= value <= high + slack for value in values)
    assert all(map(math.isfinite, Scale(low, high, 0, 1).ticks()))


def test_the_extent_of_nothing_is_drawable() -> None:
    assert extent([None]) == (0.0, 1.0)


def test_the_colours_run_from_dark_to_bright() -> None:
    assert (viridis(0), viridis(1), viridis(7)) == ("#440154", "#fde725", "#fde725")


@pytest.mark.parametrize(("value", "text"), [(0.863, "86"), (0.0, "0"), (1.0, "100"), (0.049, "4.9"), (0.07, "7")])
def test_percent(value: float, text: str) -> None:
    assert percent(value) == f"{text}\u202f%"


@pytest.mark.parametrize(("value", "text"), [(20.0, "20"), (0.25, "0.25"), (15000.0, "15k"), (0.0005, "5e-4")])
def test_tick_labels(value: float, text: str) -> None:
    assert tick_label(value) == text


def test_the_moving_mean_bridges_gaps() -> None:
    assert moving_mean([1.0, None, 3.0, 5.0], 3) == [1.0, 2.0, 4.0, 4.0]
