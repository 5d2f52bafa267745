"""The `webshop` suite: `webshop:SPLIT`, `webshop/large:SPLIT` and `webshop/real:SPLIT`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palaestra.envs.datafiles import VARIABLE, find_data
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.envs.webshop.catalogue import LEAST, MOST, Catalogue, check_split
from palaestra.envs.webshop.pages import check_form
from palaestra.envs.webshop.shop import Address, open_catalogue
from palaestra.errors import ConfigError, DataError, UnknownNameError

ENV = "webshop/Text-v0"
LEVELS = {"small": 1000, "large": 100_000}
"""Level -> products of a made-up shop."""
REAL = "real"


def load(
    split: str,
    level: str | None = None,
    *,
    products: int | None = None,
    catalogue: int = 0,
    data: str | None = None,
    max_turns: int | None = None,
    observation: str | None = None,
) -> TaskSuite:
    """The goals of one split.

    Args:
        split: `train`, `validation` or `test`.
        level: `small` (the default), `large` or `real`.
        products: how many a made-up shop has, from 200; instead of the level's.
        catalogue: the seed of a made-up shop: which products there are.
        data: the folder of `real`; without it `webshop` in `$PALAESTRA_DATA`.
        max_turns: limit of an episode; 15 unless given.
        observation: form of the pages, `text` (unless given) or `rich`.

    Raises:
        UnknownNameError: no such split, level or form of pages.
        ConfigError: a shop cannot have so many products, or a parameter does not go with the level.
        DataError: the data are missing or no WebShop data.
    """
    check_split(split)
    level = level or "small"
    if level == REAL:
        if products is not None or catalogue:
            raise ConfigError("webshop/real has the products of its data; leave products and catalogue out")
        params: dict[str, Any] = {"data": str(_folder(data))}
        address = Address(products=0, data=params["data"])
    else:
        if data is not None:
            raise ConfigError(f"webshop/{level} is made up; for data of yours load webshop/real:{split}")
        address = _made_up(level, products, catalogue)
        params = {"products": address.products, "catalogue": address.seed}
    if max_turns is not None:
        params["max_turns"] = max_turns
    if observation is not None:
        params["observation"] = check_form(observation)
    goods = open_catalogue(address)
    return TaskSuite(f"webshop/{level}", split, goods.goals(split), lambda i: _task(goods, level, split, i, params))


def _folder(data: str | None) -> Path:
    folder = Path(data).expanduser() if data else find_data("webshop")
    if folder is None:
        raise DataError(
            f"webshop/real needs products; pass data=FOLDER, or set {VARIABLE} to a folder with webshop in it"
        )
    return folder.absolute()


def _made_up(level: str, products: int | None, catalogue: int) -> Address:
    if level not in LEVELS:
        raise UnknownNameError("level of webshop", level, [*LEVELS, REAL])
    size = LEVELS[level] if products is None else products
    for name, number, least, most in (("products", size, LEAST, MOST), ("catalogue", catalogue, 0, 2**63 - 1)):
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise ConfigError(f"{name} of webshop is a whole number from {least} to {most}, not {str(number)[:80]!r}")
    return Address(products=size, seed=catalogue)


def _task(goods: Catalogue, level: str, split: str, index: int, params: dict[str, Any]) -> Task:
    goal = goods.goal(split, index)
    return Task(
        env=ENV,
        name=f"{goal.asin}-{index}",
        split=split,
        seed=index,
        params={"split": split, "index": index, **params},
        kind=goal.category,
    )
