"""The paper's reward by hand-made cases, and what holds for all purchases."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rapidfuzz", reason="not installed: pip install 'palaestra[webshop]'")

from palaestra.envs.webshop.colours import plain_colour
from palaestra.envs.webshop.generate import make_product, make_product_goal
from palaestra.envs.webshop.goal import NO_LIMIT, Goal, make_goal
from palaestra.envs.webshop.product import Product
from palaestra.envs.webshop.reward import (
    alike,
    count_attributes,
    count_options,
    grade,
    title_likeness,
    type_score,
)
from palaestra.envs.webshop.wares import DEPARTMENTS

CABLE = "BRST AC Power Cord Outlet Socket Cable Plug Lead for Panasonic SC-HT830V DVD/VCR Combo Home Theater System"
CORD = "Saireed UL Listed 2 Prong Power Cord for JBL Bar 3.1 Bar 2.1 Channel 4K Ultra HD Soundbar"


def product(**changes: Any) -> Product:
    given = {"asin": "A", "name": "Oak Kettle Stand", "query": "stand", "product_category": "a › b › c"}
    return Product(**{**given, "pricing": (35.0,), **changes})


def goal(**changes: Any) -> Goal:
    given = {"asin": "A", "name": "Oak Kettle Stand", "query": "stand", "product_category": "a › b › c"}
    wanted = {
        "category": "garden",
        "instruction": "",
        "attributes": ("solid wood",),
        "options": (),
        "price_upper": 40.0,
    }
    return Goal(**{**given, **wanted, **changes})


@pytest.mark.parametrize(
    ("bought", "wanted", "released"),
    [
        (
            "adidas Unisex-Adult D.o.n. Issue 2 Indoor Court Shoe",
            "adidas Unisex-Adult D.o.n. Issue 2 Basketball Shoe",
            0.85,
        ),
        (CABLE, f"{CORD} Home Theater System Subwoofer", 0.31),
        (CABLE, CORD, 0.17),
        ("Minkissy 2pcs Stainless Steel Eyebrow Tweezers (Silver)", "Rusticware Kitchen and Bath Cabinet Knob", 0.0),
    ],
)
def test_titles_are_as_alike_as_their_nouns(bought: str, wanted: str, released: float) -> None:
    assert title_likeness(bought, wanted) == pytest.approx(released, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "score"),
    [
        ({}, 1.0),
        ({"query": "other", "product_category": "c › a › d"}, 1.0),  # two steps in common, whatever their order
        ({"query": "other", "product_category": "a › a › d"}, 1.0),  # the title is alike
        ({"query": "other", "product_category": "a › x", "name": "Steel Kettle"}, 1.0),  # 1 of 3 words
        ({"name": "Lamp"}, 0.0),  # the same query, yet another thing
    ],
)
def test_type(changes: dict[str, str], score: float) -> None:
    assert type_score(product(**changes), goal()) == score


@pytest.mark.parametrize(("shared", "score"), [(0, 0.0), (1, 0.1), (2, 0.5), (3, 0.5), (5, 1.0)])
def test_type_of_foreign_queries_by_words_shared_of_sixteen(shared: int, score: float) -> None:
    words = [f"word{letter}" for letter in "abcdefghijklmnop"]
    bought = product(name=" ".join(words[:shared]) or "else", query="other", product_category="x")
    assert type_score(bought, goal(name=" ".join(words))) == score


def test_a_title_without_words_is_judged_by_query_and_category() -> None:
    assert type_score(product(name="1234"), goal(name="99 !")) == 1.0
    assert type_score(product(name="1234", query="x", product_category="x"), goal(name="99 !")) == 0.5


def test_attributes_count_by_likeness_or_where_a_text_says_them() -> None:
    wanted = ("tea tree", "essential oils", "natural ingredients")
    assert count_attributes(product(attributes=("tea tree", "essential oil", "natural ingredients")), wanted) == 3
    assert count_attributes(product(attributes=("essential oil", "natural ingredients")), wanted) == 2
    said = product(bullets=("With Essential Oils.",), description="Made with natural ingredients")
    assert count_attributes(said, wanted) == 2
    assert count_attributes(product(attributes=("tea bag", "earl gray"), bullets=("Calming",)), wanted) == 0


@pytest.mark.parametrize(
    ("chosen", "wanted", "count"),
    [
        (["pack of 12", "grey", "XL"], ["grey", "XL", "pack of 12"], 3),
        (["pack of 12", "blue", "XL"], ["grey", "XL", "pack of 12"], 2),
        (["pack of 12", "powder snow", "XL"], ["cool powder snow", "XL", "pack of 12"], 3),
        (["dark blue"], ["blue stripes"], 1),  # the first colour of the list that occurs: blue
        (["anything"], [], 0),
        ([], ["red"], 0),
        (["red", "red wine"], ["red"], 1),  # never more than are wanted
    ],
)
def test_options(chosen: list[str], wanted: list[str], count: int) -> None:
    assert count_options(chosen, wanted) == count


def test_colours_and_likeness() -> None:
    assert [plain_colour(value) for value in ("", "violet lavender", "123alabaster", "webshop")] == [
        "",
        "lavender",
        "alabaster",
        "webshop",
    ]
    assert alike("x-large", "LARGE")  # one's words are among the other's: so it is in the released code
    assert not alike("", "")
    assert not alike("жук", "жук")  # only ASCII counts there


def test_the_whole_formula() -> None:
    wanted = goal(attributes=("solid wood", "easy assembly", "non slip"), options=("grey", "queen"))
    bought = product(attributes=("solid wood", "non slip"))
    assert grade(bought, wanted, ["grey", "king"]) == (1.0, 2, 1, True, pytest.approx(4 / 6))
    assert grade(product(attributes=wanted.attributes), wanted, ["queen", "grey"]).total == 1.0
    assert grade(product(pricing=(50.0,)), wanted, []) == (1.0, 0, 0, False, 0.0)
    assert grade(product(name="Lamp", attributes=wanted.attributes), wanted, ["grey", "queen"]).total == 0.0


def test_a_limit_of_price_is_told_and_above_the_price() -> None:
    cheap = make_goal(product(), "find a stand", ["solid wood"], [], random.Random(0))
    assert cheap.price_upper in (50.0, 60.0, 70.0)
    assert cheap.instruction == f"find a stand, and price lower than {cheap.price_upper:.2f} dollars"
    assert cheap.wish == "find a stand"
    dear = make_goal(product(pricing=(985.0,)), "find a stand", ["solid wood"], [], random.Random(0))
    assert (dear.price_upper, dear.instruction) == (NO_LIMIT, "find a stand")


def test_a_price_of_a_range_is_the_same_every_time() -> None:
    ranged = product(pricing=(10.0, 20.0))
    assert 10 <= ranged.price == product(pricing=(10.0, 20.0)).price <= 20
    assert ranged.price != product(asin="B", pricing=(10.0, 20.0)).price
    assert (ranged.price_tag, product(pricing=()).price) == ("$10.0 to $20.0", 100.0)


def test_no_two_attributes_or_values_of_a_made_up_shop_are_alike() -> None:
    for department in DEPARTMENTS.values():
        for values in department.options.values():
            for one, other in itertools.permutations(values, 2):
                assert not count_options([one], [other]), (one, other)
        for one, other in itertools.permutations(department.attributes, 2):
            assert not alike(one, other), (one, other)
            assert one not in other


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 5000), st.randoms(use_true_random=False))
def test_every_purchase_is_graded_within_bounds(
    number: int, variant: int, other: int, generator: random.Random
) -> None:
    """In [0, 1]; the product wanted gets 1 with its options, less for each that is missing or worse."""
    wanted = make_product_goal(0, number, variant)
    bought = make_product(0, other)
    options = [generator.choice(values) for values in bought.options.values()]
    assert 0 <= grade(bought, wanted, options).total <= 1
    own = make_product(0, number)
    assert grade(own, wanted, wanted.options).total == 1
    for i, values in enumerate(own.options.values()):
        rest = [*wanted.options[:i], *wanted.options[i + 1 :]]
        missing = grade(own, wanted, rest).total
        assert missing < 1
        for value in set(values) - {wanted.options[i]}:
            assert grade(own, wanted, [*rest, value]).total == missing


@settings(deadline=None)
@given(st.text(), st.text(), st.lists(st.text(), max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_any_texts_are_graded_within_bounds(name: str, other: str, chosen: list[str], wanted: list[str]) -> None:
    aim = goal(name=name, attributes=tuple(wanted), options=tuple(chosen))
    assert 0 <= grade(product(name=other, description=name), aim, wanted).total <= 1
    assert 0 <= title_likeness(other, name) <= 1
