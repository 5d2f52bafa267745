"""Real products: both layouts, files that are hostile or damaged, the real data where they are at hand."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tantivy", reason="not installed: pip install 'palaestra[webshop]'")
pytest.importorskip("rapidfuzz", reason="not installed: pip install 'palaestra[webshop]'")

from palaestra.envs.tasks import TaskSuite, load_suite
from palaestra.envs.webshop import real
from palaestra.envs.webshop.env import WebShopEnv
from palaestra.envs.webshop.real import read_catalogue
from palaestra.envs.webshop.reward import grade
from palaestra.errors import DataError

ITEM = {
    "asin": "B000000001",
    "name": "Oak  Kettle\u0007 Stand",
    "category": "garden",
    "query": " Kettle Stands ",
    "product_category": "Home › Kitchen",
    "full_description": "Holds a kettle.",
    "small_description": ["Solid wood. ", None, "Solid wood. "],
    "pricing": "$1,299.50$19.99",
    "customization_options": {
        "Color": [{"value": " Red/Blue ", "price": 3}, {"value": "Oak"}],
        "Size": [{"value": f"{i} inch"} for i in range(9)],
        "Empty": None,
    },
    "average_rating": 4.5,
    "images": ["https://example.org/a.jpg"],
}
WISHES = {
    "B000000001": {
        "attributes": ["solid wood", "non slip"],
        "instruction": "Find me solid wood kettle stands",
        "instruction_attributes": ["solid wood"],
    }
}
HUMAN = {
    "B000000001": [
        {
            "instruction": "i want a wooden stand.",
            "instruction_attributes": ["solid wood"],
            "instruction_options": ["oak"],
        },
        {"instruction": "nothing", "instruction_attributes": [], "instruction_options": []},
    ]
}


def official(folder: Path, items: Any = (ITEM,), wishes: Any = WISHES, human: Any = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "items_shuffle_1000.json").write_text(json.dumps(items))
    (folder / "items_ins_v2_1000.json").write_text(json.dumps(wishes))
    if human is not None:
        (folder / "items_human_ins.json").write_text(json.dumps(human))
    return folder


def test_the_files_of_webshop(tmp_path: Path) -> None:
    catalogue = read_catalogue(official(tmp_path))
    product = catalogue.find("B000000001")
    assert (product.name, product.query, product.rating) == ("Oak Kettle Stand", "kettle stands", "4.5")
    assert product.pricing == (19.99, 1299.5)
    assert product.bullets == ("Solid wood.",)
    assert product.attributes == ("solid wood", "non slip")
    assert list(product.options) == ["color", "size"]
    assert product.options["color"] == ("red | blue", "oak")
    goals = [catalogue.goal("train", i) for i in range(catalogue.goals("train"))]
    assert [catalogue.goals(split) for split in ("train", "validation", "test")] == [3, 1, 0]  # four of 18 choices
    assert all(len(goal.options) == 2 and "with color: " in goal.instruction for goal in goals)
    assert len({goal.options for goal in goals}) == 3


def test_instructions_of_people_come_first(tmp_path: Path) -> None:
    catalogue = read_catalogue(official(tmp_path, human=HUMAN))
    assert catalogue.goals("train") == 1
    goal = catalogue.goal("train", 0)
    assert goal.instruction.startswith("i want a wooden stand")
    assert (goal.attributes, goal.options) == (("solid wood",), ("oak",))


def test_the_largest_file_of_a_name_is_read(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "items_shuffle.json").write_text(json.dumps([ITEM, {**ITEM, "asin": "B000000002"}]))
    assert len(read_catalogue(tmp_path)) == 2


def test_a_visit_to_ones_own_shop(tmp_path: Path) -> None:
    async def play() -> float:
        suite = load_suite("webshop/real:train", data=str(official(tmp_path / "own")))
        env = WebShopEnv()
        await env.reset(task=suite[0])
        while True:
            step = await env.step(await env.oracle())
            if step.terminated or step.truncated:
                return step.reward

    assert asyncio.run(play()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asin": None}, "asin"),
        ({"asin": 7}, "asin"),
        ({"name": ["a"]}, "name"),
        ({"pricing": {"a": 1}}, "pricing"),
        ({"pricing": ["free"]}, "pricing"),
        ({"customization_options": [1]}, "customization_options"),
        ({"customization_options": {"Color": [{"value": 3}]}}, "value"),
        ({"Reviews": [{"title": {"$ref": "x"}}]}, "title"),
        ({"asin": "nan"}, "0 products"),
        ({"asin": "B0000000012"}, "0 products"),
        ({"asin": "../../etc"}, "0 products"),
        ({"asin": "buy now"}, "0 products"),
        ({"asin": "B\u0660"}, "0 products"),
    ],
)
def test_products_that_are_none_are_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_catalogue(official(tmp_path, items=[{**ITEM, **change}]))


def test_hostile_text_is_harmless(tmp_path: Path) -> None:
    hostile = {
        **ITEM,
        "name": "Stand \u001b[2J\u202e\u0000 " + "x" * 10**6,
        "pricing": "$" * 1000 + "$1.2.3$-4$NaN$1e999",
        "customization_options": {
            "Color": [{"value": f"v{i}"} for i in range(5000)],
            "buy now": [{"value": "Buy Now"}, {"value": "\u0000"}, {"value": "]click[x"}],
            **{f"o{i}": [{"value": str(i)}] for i in range(1000)},
        },
        "average_rating": "\u001b[31m5",
        "Reviews": [{"title": None, "stars": 5, "review": "fine"}] * 1000,
    }
    product = read_catalogue(official(tmp_path, items=[hostile])).find("B000000001")
    assert len(product.name) == 20_000 - 3  # four characters became a space
    assert product.name.isprintable()
    assert product.pricing == (1.2, 4.0)
    assert len(product.options) == 200
    assert len(product.options["color"]) == 200
    assert product.options["buy now"] == ("buy now", "]click[x")
    assert len(product.reviews) == 200


@pytest.mark.parametrize("pricing", [None, "", [], "free", "$", [float("nan")], [-3.0]])
def test_without_a_price_it_is_a_hundred_dollars(tmp_path: Path, pricing: Any) -> None:
    item = {**ITEM, "pricing": pricing}
    if pricing and isinstance(pricing, list) and pricing[0] != pricing[0]:
        with pytest.raises(DataError):  # NaN is not JSON
            read_catalogue(official(tmp_path, items=[item]))
        return
    assert read_catalogue(official(tmp_path, items=[item])).find("B000000001").price == 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"[", "truncated"),
        (b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.", "pickle"),
        (b"PK\x03\x04rest", "zip"),
        (b"[" * 100_000, "object"),
        (b'[{"images": ' + b"[" * 100_000, "nested|recursion"),
        (b'{"a": 1}', "array"),
        (b'[{"asin": "\xff"}]', "UTF-8|utf-8|byte"),
        (gzip.compress(json.dumps([ITEM]).encode())[:-10], "truncated|damaged"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    official(tmp_path)
    (tmp_path / "items_shuffle_1000.json").write_bytes(content)
    with pytest.raises(DataError, match=f"(?i){message}"):
        read_catalogue(tmp_path)


def test_a_bomb_does_not_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "MOST_STREAMED", 1 << 20)
    bomb = gzip.compress(b'{"asin": "A", "name": "' + b" " * (1 << 24) + b'"}')
    official(tmp_path)
    (tmp_path / "products.jsonl.gz").write_bytes(bomb)
    with pytest.raises(DataError, match="limit"):
        read_catalogue(tmp_path)


def test_folders_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="items_ins"):
        read_catalogue(tmp_path)
    with pytest.raises(DataError, match="items_ins"):
        load_suite("webshop/real:test", data="/does/not/exist")
    with pytest.raises(DataError, match="0 goals"):
        read_catalogue(official(tmp_path, wishes={}))
    monkeypatch.delenv("PALAESTRA_DATA", raising=False)
    with pytest.raises(DataError, match="PALAESTRA_DATA"):
        load_suite("webshop/real:test")


GOALS = [
    (split, index) for split, size in (("train", 501), ("validation", 334), ("test", 167)) for index in range(size)
]


@pytest.fixture
def real_suites(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, TaskSuite]:
    monkeypatch.setenv("PALAESTRA_DATA", str(real_data))
    return {split: load_suite(f"webshop/real:{split}") for split in ("train", "validation", "test")}


def test_the_thousand_products_of_the_small_setting(real_suites: dict[str, TaskSuite]) -> None:
    assert [len(suite) for suite in real_suites.values()] == [501, 334, 167]
    catalogue = read_catalogue(Path(real_suites["test"][0].params["data"]))
    goals = [catalogue.goal(*one) for one in GOALS]
    assert len({(goal.asin, goal.options) for goal in goals}) == len(GOALS)
    assert real_suites["test"][0].name.endswith("-0")


def test_their_goals_can_be_met_in_full(real_suites: dict[str, TaskSuite]) -> None:
    folder = Path(real_suites["test"][0].params["data"])
    catalogue = read_catalogue(folder)
    graded = []
    for split in ("train", "validation", "test"):
        for index in range(catalogue.goals(split)):
            goal = catalogue.goal(split, index)
            graded.append(grade(catalogue.find(goal.asin), goal, goal.options).total)
    assert min(graded) == 1


def test_the_oracle_shops_among_them(real_suites: dict[str, TaskSuite]) -> None:
    async def play() -> list[float]:
        env, rewards = WebShopEnv(), []
        for task in real_suites["test"][:25]:
            await env.reset(task=task)
            while True:
                step = await env.step(await env.oracle())
                if step.terminated or step.truncated:
                    break
            rewards.append(step.reward)
        return rewards

    assert sum(asyncio.run(play())) / 25 >= 0.93
