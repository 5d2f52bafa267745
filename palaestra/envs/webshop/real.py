"""Real products from a folder of the user's: WebShop's own files, or a cleaned selection of them.

Two layouts are known. WebShop's: `items_shuffle*.json` (products), `items_ins*.json` (attributes, and instructions
made of them) and, if it is there, `items_human_ins.json` (instructions that people wrote). Cleaned:
`products*.jsonl` or `.jsonl.gz`, a product a line, and `instructions*.json`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from palaestra.envs.datafiles import read_json, read_jsonl
from palaestra.envs.webshop.catalogue import check_split
from palaestra.envs.webshop.goal import Goal, make_goal
from palaestra.envs.webshop.product import Product
from palaestra.envs.webshop.records import Item, Wish, clean
from palaestra.errors import DataError
from palaestra.seeds import derive_seed

MOST_BYTES = 1 << 30
"""Of a JSON file, which is read as a whole."""
MOST_STREAMED = 8 << 30
"""Of JSON lines, of which only products stay in memory."""
COMBINATIONS = 4
"""Most goals of a product from an instruction that no person wrote, each with another choice of its options."""
SHUFFLE = 233
"""Seed of the order of goals in the released code, by which it divides them into splits."""
SHARES = {"test": (500, 6), "validation": (1000, 3)}
"""Split -> how many of the first goals it has, and which share of all if they are few."""


class Real:
    """Products of the user's, in memory, and their goals in the order of the released code."""

    def __init__(self, products: list[Product], goals: list[Goal]) -> None:
        self._products = {product.asin: product for product in products}
        random.Random(SHUFFLE).shuffle(goals)
        self._goals, start = {}, 0
        for split, (most, share) in SHARES.items():
            stop = start + min(most, len(goals) // share)
            self._goals[split], start = goals[start:stop], stop
        self._goals["train"] = goals[start:]

    def __len__(self) -> int:
        return len(self._products)

    def __iter__(self) -> Iterator[Product]:
        return iter(self._products.values())

    def find(self, asin: str) -> Product:
        """The product of that number."""
        return self._products[asin]

    def goals(self, split: str) -> int:
        """The first 500 of all are `test`, the next 1,000 `validation`; of fewer than 3,000 a sixth and a third."""
        return len(self._goals[check_split(split)])

    def goal(self, split: str, index: int) -> Goal:
        """Goal `index` of a split."""
        return self._goals[check_split(split)][index]


def read_catalogue(folder: Path) -> Real:
    """The products in `folder`, and the goals that their instructions make.

    Raises:
        DataError: the folder has no WebShop data, or they are damaged, too large, or without products or goals.
    """
    items, human = _items(folder), _file(folder, "items_human_ins*.json")
    made = _file(folder, "items_ins*.json") or _needed(folder, "instructions*.json")
    wishes = read_json(made, dict[str, Wish], most_bytes=MOST_BYTES)
    products = _products(items, wishes)
    if human is not None:
        said = read_json(human, dict[str, list[Wish]], most_bytes=MOST_BYTES)
        goals = [goal for product in products for goal in _human_goals(product, said.get(product.asin, []))]
    else:
        goals = [goal for product in products for goal in _made_goals(product, wishes.get(product.asin))]
    if not products or not goals:
        raise DataError(f"{folder} has {len(products)} products and {len(goals)} goals of WebShop; both are needed")
    return Real(products, goals)


def _items(folder: Path) -> Iterable[Item]:
    lines = _file(folder, "products*.jsonl*")
    if lines is not None:
        return read_jsonl(lines, Item, most_bytes=MOST_STREAMED)
    return read_json(_needed(folder, "items_shuffle*.json"), list[Item], most_bytes=MOST_BYTES)


def _file(folder: Path, pattern: str) -> Path | None:
    """The largest file of that name, as WebShop's small ones are parts of its large ones."""
    try:
        found = sorted((path.stat().st_size, path) for path in folder.glob(pattern) if path.is_file())
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from None
    return found[-1][1] if found else None


def _needed(folder: Path, pattern: str) -> Path:
    found = _file(folder, pattern)
    if found is None:
        raise DataError(
            f"{folder} has no {pattern}; webshop/real wants items_shuffle*.json with items_ins*.json, "
            "or products*.jsonl(.gz) with instructions*.json"
        )
    return found


def _products(items: Iterable[Item], wishes: dict[str, Wish]) -> list[Product]:
    """The first of each number; those without a proper number are left out, as in the released code."""
    products: dict[str, Product] = {}
    for item in items:
        wish = wishes.get(item.asin)
        product = item.product(wish.attributes if wish is not None else [])
        if product is not None:
            products.setdefault(product.asin, product)
    return list(products.values())


def _human_goals(product: Product, wishes: Iterable[Wish]) -> Iterator[Goal]:
    for number, wish in enumerate(wishes):
        text, attributes = clean(wish.instruction or "").strip("."), _cleaned(wish.instruction_attributes)
        if text and attributes:
            options = _cleaned(wish.instruction_options)
            yield make_goal(product, text, attributes, options, _generator(product, number))


def _made_goals(product: Product, wish: Wish | None) -> Iterator[Goal]:
    if wish is None or not wish.instruction or not wish.instruction_attributes:
        return
    text, attributes = clean(wish.instruction), _cleaned(wish.instruction_attributes)
    names = sorted(product.options)
    for number, values in enumerate(_combinations([product.options[name] for name in names], product)):
        named = ", and ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
        told = f"{text} with {named}" if named else text
        yield make_goal(product, told, attributes, values, _generator(product, number))


def _combinations(options: list[tuple[str, ...]], product: Product) -> list[tuple[str, ...]]:
    """Some of the choices of one value of each option, drawn without making all of them."""
    first = list(itertools.islice(itertools.product(*options), COMBINATIONS + 1))
    if len(first) <= COMBINATIONS:
        return first
    generator, drawn = _generator(product, -1), dict.fromkeys(first[:0])
    for _ in range(100 * COMBINATIONS):
        drawn[tuple(generator.choice(values) for values in options)] = None
        if len(drawn) == COMBINATIONS:
            break
    return list(drawn)


def _generator(product: Product, number: int) -> random.Random:
    return random.Random(derive_seed(0, "real goal", product.asin, number))


def _cleaned(texts: Iterable[str]) -> list[str]:
    return [text for text in map(clean, texts) if text]
