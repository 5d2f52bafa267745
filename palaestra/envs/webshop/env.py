"""The environment: one visit to a shop with an instruction of what to buy."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any, NamedTuple

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.history import fresh_seed
from palaestra.envs.params import whole
from palaestra.envs.tasks import Task
from palaestra.envs.webshop.catalogue import LEAST, MOST
from palaestra.envs.webshop.goal import Goal
from palaestra.envs.webshop.oracle import advise
from palaestra.envs.webshop.pages import Form, check_form, show
from palaestra.envs.webshop.queries import suggested
from palaestra.envs.webshop.reward import Parts, grade
from palaestra.envs.webshop.shop import PRODUCTS, Address, Shop, open_shop
from palaestra.envs.webshop.view import Button, View, buttons, click, search
from palaestra.errors import DataError, EnvError
from palaestra.seeds import derive_seed

MAX_TURNS = 15
"""The usual limit of an episode."""
LONGEST_ACTION = 1000
"""Characters; a longer action is not understood."""
OF = "a webshop task"
_ACTION = re.compile(r"(search|click)\s*\[(.*)\]", re.IGNORECASE | re.DOTALL | re.ASCII)
_LOWER = {ord(letter): letter.lower() for letter in string.ascii_uppercase}
"""For buttons, so that no letter of another script passes for one of theirs."""


class Visit(NamedTuple):
    """An episode's state: `snapshot` and `restore` hand it out and take it back."""

    address: Address
    goal: Goal
    form: Form
    max_turns: int
    view: View
    turn: int
    """Actions so far."""
    bought: Parts | None
    """How good the purchase was, once there is one."""


class WebShopEnv(Env[str, str]):
    """A shop of pages: search, results, item and its details. Buying ends the episode.

    Actions are `search[words]`, on every page, and `click[text]` of what the page shows as a button, upper or lower
    case. A task's `params` hold `split` and `index` of the goal, `products` and `catalogue` (seed) of a made-up shop or
    `data` (folder) of a real one, `max_turns` and
    `observation`, the form of the pages (see `pages`). Without a task, `reset` draws a goal of the training split.

    Reward is the paper's, from 0 to 1, for the purchase; success is a reward of 1. Nothing is random.
    """

    def __init__(self, products: int = PRODUCTS, data: str = "", observation: Form = "text") -> None:
        self._form = check_form(observation)
        self._address = _address({"products": products, "data": data})
        self._visit: Visit | None = None
        self._shop: Shop | None = None
        self._offered: tuple[View, dict[str, Button]] | None = None

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin a visit; see `Env.reset`. The first in a process opens the shop, which takes a moment.

        Raises:
            DataError: the task's params do not describe a goal, or its data are missing or something else.
            MissingExtraError: tantivy or rapidfuzz is not installed.
        """
        self._visit = None  # stays, should this fail
        params = task.params if task is not None else {}
        address = _address(params) if task is not None else self._address
        shop = open_shop(address)
        goal = _goal(shop, params) if task is not None else _drawn(shop, seed)
        form = check_form(params.get("observation", self._form))
        max_turns = whole(params, "max_turns", OF, default=MAX_TURNS, least=1)
        self._shop = shop
        self._visit = visit = Visit(address, goal, form, max_turns, View(), 0, None)
        return Reset(self._page(visit), self._info(visit, False))

    async def step(self, action: str) -> Step[str]:
        """Do one action. One that the page does not offer changes nothing, and takes a turn all the same."""
        visit, shop = self._playing, self._shop
        assert shop is not None
        view = _followed(visit.view, self._buttons(visit.view), action)
        invalid = view is None
        after = visit.view if view is None else view
        bought = visit.bought
        if after.page == "done" and bought is None:
            chosen = [value for _, value in after.options]
            bought = grade(shop.find(after.asin), visit.goal, chosen)
        reward = bought.total if bought is not None and visit.bought is None else 0.0
        self._visit = visit = visit._replace(view=after, turn=visit.turn + 1, bought=bought)
        terminated = bought is not None
        truncated = not terminated and visit.turn >= visit.max_turns
        return Step(self._page(visit), reward, terminated, truncated, self._info(visit, invalid))

    async def close(self) -> None:
        """Leave the shop, which stays open for others."""
        self._visit = self._shop = None

    async def snapshot(self) -> Visit:
        """The state of the visit, which never changes."""
        return self._playing

    async def restore(self, state: Visit) -> None:
        """Continue from `state`, in this or any other instance."""
        self._shop, self._visit = open_shop(state.address), state

    async def oracle(self) -> str:
        """The next action of who knows what meets the goal."""
        visit, shop = self._playing, self._shop
        assert shop is not None
        return advise(visit.view, shop, visit.goal)

    async def render(self) -> str:
        """The page, with its buttons marked, and what was chosen."""
        visit, shop = self._playing, self._shop
        assert shop is not None
        return show(visit.view, shop, visit.goal.instruction, "rich", visit.bought.total if visit.bought else 0.0)

    @property
    def _playing(self) -> Visit:
        if self._visit is None:
            raise EnvError("nobody is in the shop; call reset() first")
        return self._visit

    def _buttons(self, view: View) -> dict[str, Button]:
        """What can be clicked, found once for each page."""
        assert self._shop is not None
        if self._offered is None or self._offered[0] is not view:
            self._offered = view, buttons(view, self._shop)
        return self._offered[1]

    def _page(self, visit: Visit) -> str:
        assert self._shop is not None
        reward = visit.bought.total if visit.bought else 0.0
        return show(visit.view, self._shop, visit.goal.instruction, visit.form, reward)

    def _info(self, visit: Visit, invalid: bool) -> Info:
        if visit.view.page == "search":
            commands = [f"search[{query}]" for query in suggested(visit.goal)]
        else:
            commands = [f"click[{text}]" for text in self._buttons(visit.view)]
        score = visit.bought.total if visit.bought else 0.0
        info: Info = {
            "admissible_commands": commands,
            "success": score >= 1,
            "invalid": invalid,
            "task_type": visit.goal.category,
            "score": score,
        }
        if visit.bought:
            info["purchase"] = visit.bought._asdict()
        return info


def _followed(view: View, offered: Mapping[str, Button], action: object) -> View | None:
    """Where `action` leads; `None` where it makes no sense."""
    if not isinstance(action, str) or len(action) > LONGEST_ACTION:
        return None
    match = _ACTION.fullmatch(action.strip())
    if match is None or view.page == "done":
        return None
    argument = " ".join(match[2].split())
    if match[1].lower() == "search":
        return search(view, argument.lower()) if argument else None
    button = offered.get(argument.translate(_LOWER))
    return click(view, button) if button is not None else None


def _address(params: Mapping[str, Any]) -> Address:
    data = params.get("data", "")
    if not isinstance(data, str):
        raise DataError(f"data of {OF} is the path of a folder, not {str(data)[:80]!r}")
    if data:
        return Address(products=0, data=data)
    products = whole(params, "products", OF, default=PRODUCTS, least=LEAST, most=MOST)
    return Address(products=products, seed=whole(params, "catalogue", OF, default=0))


def _goal(shop: Shop, params: Mapping[str, Any]) -> Goal:
    split = str(params.get("split"))[:80]
    most = shop.catalogue.goals(split) - 1
    return shop.catalogue.goal(split, whole(params, "index", OF, most=most))


def _drawn(shop: Shop, seed: int | None) -> Goal:
    seed = fresh_seed(None) if seed is None else seed
    return shop.catalogue.goal("train", derive_seed(seed, "webshop") % shop.catalogue.goals("train"))
