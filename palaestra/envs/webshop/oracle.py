"""The oracle: searches as a visitor can, knows which of the results meets the goal best, and buys that."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from palaestra.envs.webshop.goal import Goal
from palaestra.envs.webshop.product import Product
from palaestra.envs.webshop.queries import suggested
from palaestra.envs.webshop.reward import count_options, grade
from palaestra.envs.webshop.shop import Shop
from palaestra.envs.webshop.view import BACK, BUY, NEXT, PER_PAGE, PREVIOUS, View


class Plan(NamedTuple):
    """What to buy, and where it is found."""

    query: str
    asin: str
    options: tuple[str, ...]
    """Values to choose."""
    reward: float


def advise(view: View, shop: Shop, goal: Goal) -> str:
    """The next action of the plan, from wherever the visitor is."""
    plan = make_plan(shop, goal)
    if view.page == "search":
        return f"search[{plan.query}]"
    if view.page == "results":
        return _through_results(view, shop, plan)
    if view.asin != plan.asin:
        return f"click[{BACK.lower()}]"
    if view.page == "detail":
        return f"click[{PREVIOUS.lower()}]"
    chosen = {value for _, value in view.options}
    left = [value for value in plan.options if value not in chosen]
    return f"click[{left[0] if left else BUY.lower()}]"


def _through_results(view: View, shop: Shop, plan: Plan) -> str:
    found = shop.search(view.query)
    if plan.asin not in found:
        return f"click[{BACK.lower()}]"
    number = found.index(plan.asin) // PER_PAGE + 1
    if number == view.number:
        return f"click[{plan.asin.lower()}]"
    return f"click[{(NEXT if number > view.number else PREVIOUS).lower()}]"


@lru_cache(4096)
def make_plan(shop: Shop, goal: Goal) -> Plan:
    """The best purchase among the results of a few queries; of equal ones the first that is found.

    The queries are those that the instruction suggests, what the thing is called, and the title of a product that
    meets the goal, which the visitor does not know. The first that leads to a full reward is taken.
    """
    best = Plan("", goal.asin, (), -1.0)
    for query in (*suggested(goal), goal.query, goal.name):
        plans = [_purchase(shop.find(asin), query, goal) for asin in shop.search(query)]
        best = max([best, *plans], key=lambda plan: plan.reward)
        if best.reward >= 1:
            break
    return best


def _purchase(product: Product, query: str, goal: Goal) -> Plan:
    """Buying `product`, with the options that are wanted as far as it has them."""
    chosen: dict[str, str] = {}
    for wanted in goal.options:
        for name, values in product.options.items():
            if name in chosen:
                continue
            like = [value for value in values if count_options((value,), (wanted,))]
            if like:
                chosen[name] = wanted if wanted in like else like[0]
                break
    options = tuple(chosen.values())
    return Plan(query, product.asin, options, grade(product, goal, options).total)
