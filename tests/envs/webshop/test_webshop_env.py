"""WebShop: pages, actions that make no sense, the oracle, forks, many visitors at once."""

from __future__ import annotations

import asyncio
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tantivy", reason="not installed: pip install 'palaestra[webshop]'")
pytest.importorskip("rapidfuzz", reason="not installed: pip install 'palaestra[webshop]'")

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.episode import seen
from palaestra.envs.tasks import Task, load_suite
from palaestra.envs.webshop.env import WebShopEnv
from palaestra.envs.webshop.shop import Address, open_shop
from palaestra.errors import ConfigError, DataError, EnvError, PalaestraError, UnknownNameError

ID = "webshop/Text-v0"
TEST = load_suite("webshop:test")


async def opened(index: int = 0, **kwargs: Any) -> WebShopEnv:
    env = WebShopEnv(**kwargs)
    await env.reset(task=TEST[index])
    return env


async def at_item(env: WebShopEnv) -> Any:
    """Go to the first product that is found."""
    first = await env.step(f"search[{(await env.oracle())[7:-1]}]")
    return await env.step(first.info["admissible_commands"][2])


def test_it_keeps_the_contract() -> None:
    report = check_env(ID, seeds=(0, 1))
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_a_visit_from_search_to_purchase() -> None:
    async def play() -> None:
        env = WebShopEnv()
        first = await env.reset(task=TEST[0])
        instruction = first.observation.split(" [SEP] ")[2]
        assert first.observation == f"WebShop [SEP] Instruction: [SEP] {instruction} [SEP] Search"
        commands = first.info["admissible_commands"]
        assert all(command.startswith("search[") for command in commands)
        assert len(set(commands)) == len(commands) >= 3
        results = await env.step(commands[0])
        assert results.observation.startswith(
            f"Instruction: [SEP] {instruction} [SEP] Back to Search [SEP] Page 1 (Total results: 50) [SEP] Next >"
        )
        assert results.info["admissible_commands"][:2] == ["click[back to search]", "click[next >]"]
        assert len(results.info["admissible_commands"]) == 12
        second = await env.step("click[Next >]")
        assert "Page 2 (Total results: 50) [SEP] < Prev [SEP] Next >" in second.observation
        assert (await env.step("click[< Prev]")).observation == results.observation
        item = await env.step(results.info["admissible_commands"][2])
        assert "Price: $" in item.observation
        assert item.observation.endswith("Description [SEP] Features [SEP] Reviews [SEP] Buy Now")
        for detail in ("Description", "Features", "Reviews"):
            page = await env.step(f"click[{detail}]")
            assert page.info["admissible_commands"] == ["click[back to search]", "click[< prev]"]
            assert (await env.step("click[< prev]")).observation == item.observation
        assert (await env.step("click[< prev]")).observation == results.observation
        await env.step(results.info["admissible_commands"][2])
        bought = await env.step("click[buy now]")
        assert bought.terminated
        assert bought.observation.startswith(
            "Thank you for shopping with us! [SEP] Your score (min 0.0, max 1.0) [SEP] "
        )
        assert 0 < bought.reward == bought.info["score"] == bought.info["purchase"]["total"] < 1
        assert not bought.info["success"]
        assert bought.info["admissible_commands"] == []

    asyncio.run(play())


def test_options_are_kept_on_sub_pages_and_forgotten_with_the_results() -> None:
    async def play() -> None:
        env = await opened(observation="rich")
        item = await at_item(env)
        option = item.info["admissible_commands"][6]
        text = option[6:-1]
        assert f"[button] {text} [button_]" in item.observation
        chosen = await env.step(option)
        assert f"[clicked button] {text} [clicked button_]" in chosen.observation
        await env.step("click[features]")
        assert (await env.step("click[< prev]")).observation == chosen.observation
        results = await env.step("click[< prev]")
        visited = results.info["admissible_commands"][2][6:-1].upper()
        assert f"[clicked button] {visited} [clicked button_]" in results.observation
        assert (await env.step(f"click[{visited}]")).observation == item.observation

    asyncio.run(play())


def test_a_task_can_ask_for_rich_pages() -> None:
    async def play() -> None:
        env = WebShopEnv()
        first = await env.reset(task=load_suite("webshop:test", observation="rich", max_turns=2)[0])
        assert first.observation.endswith("[button] Search [button_]")
        assert (await env.render()) == first.observation
        await env.step("x")
        assert (await env.step("x")).truncated
        assert (await env.reset(task=TEST[0])).observation.endswith("[SEP] Search")

    asyncio.run(play())


HOSTILE: list[Any] = [
    "",
    " ",
    "buy now",
    "click",
    "click[",
    "click[]",
    "click[[buy now]]",
    "click[click[buy now]]",
    "click[buy now] click[buy now]",
    "click[buy\u200bnow]",
    "click[\u0412uy now]",  # a Cyrillic letter
    "cli\u0441k[buy now]",
    "clic\u212a[buy now]",  # the Kelvin sign, whose lower case is k
    "click[bac\u212a to search]",
    "click[buy now" + " " * 10**6 + "]",
    "search[" + "a" * 10**6 + "]",
    "search[]",
    "search[ \t ]",
    "click[next >]",
    "click[search]",
    "click[__class__]",
    "click[../../etc/passwd]",
    "\0",
    "\ud800",
    None,
    7,
    b"click[buy now]",
    ["click[buy now]"],
    {"click": "buy now"},
]


@pytest.mark.parametrize("action", HOSTILE, ids=lambda action: ascii(action)[:30])
def test_what_makes_no_sense_changes_nothing_and_takes_a_turn(action: Any) -> None:
    async def play() -> None:
        env = await opened()
        item = await at_item(env)
        before = await env.snapshot()
        step = await env.step(action)
        assert step.observation == item.observation
        assert step.info == {**item.info, "invalid": True}
        assert (step.reward, step.terminated, step.truncated) == (0.0, False, False)
        assert (await env.snapshot()) == before._replace(turn=before.turn + 1)

    asyncio.run(play())


@pytest.mark.parametrize("action", ["Click[ Buy  Now ]", " click [buy now]\n", "CLICK[BUY NOW]"])
def test_case_and_spaces_do_not_matter(action: str) -> None:
    async def play() -> None:
        env = await opened()
        await at_item(env)
        assert (await env.step(action)).terminated

    asyncio.run(play())


def test_a_search_works_on_every_page_and_takes_any_words() -> None:
    async def play() -> None:
        env = await opened()
        await at_item(env)
        for query in ("shampoo", '"+(]:*^~\\ OR', "shampoo]", "\ud800 \0 шампунь", "zzzzqqq"):
            step = await env.step(f"search[{query}]")
            assert not step.info["invalid"]
            step.observation.encode()
        assert "Page 1 (Total results: 0)" in step.observation
        assert step.info["admissible_commands"] == ["click[back to search]"]

    asyncio.run(play())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 499), st.integers(0, 12), st.randoms(use_true_random=False))
def test_the_oracle_finds_back_and_buys_what_is_wanted(index: int, strayed: int, generator: random.Random) -> None:
    async def play() -> None:
        env = WebShopEnv()
        step: Any = await env.reset(task=load_suite("webshop:test", max_turns=strayed + 15)[index])
        for _ in range(strayed):
            commands = [one for one in step.info["admissible_commands"] if one != "click[buy now]"]
            step = await env.step(generator.choice(commands))
        before = await env.snapshot()
        assert await env.oracle() == await env.oracle()
        assert await env.snapshot() == before
        for _ in range(15):
            step = await env.step(await env.oracle())
            if step.terminated:
                break
        assert step.reward == 1
        assert step.info["success"]

    asyncio.run(play())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_forks_go_on_alike_and_apart(seed: int, generator: random.Random) -> None:
    async def play() -> None:
        async with make(ID) as env, make(ID) as alone:
            step: Any = await alone.reset(seed=seed)
            commands, expected = [], []
            while len(commands) < 10 and not (commands and (step.terminated or step.truncated)):
                commands.append(generator.choice(step.info["admissible_commands"]))
                step = await alone.step(commands[-1])
                expected.append(seen("", step))
            half = len(commands) // 2
            await env.reset(seed=seed)
            for command in commands[:half]:
                await env.step(command)
            for sibling in [*await env.fork(2), env]:
                assert [seen("", await sibling.step(command)) for command in commands[half:]] == expected[half:]
                if sibling is not env:
                    await sibling.close()

    asyncio.run(play())


def test_threads_visit_one_shop() -> None:
    def visit(index: int) -> tuple[float, list[str]]:
        async def play() -> tuple[float, list[str]]:
            env, pages = await opened(index), []
            while True:
                step = await env.step(await env.oracle())
                pages.append(step.observation)
                if step.terminated or step.truncated:
                    return step.reward, pages

        return asyncio.run(play())

    expected = [visit(index) for index in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(visit, range(12))) == expected
    assert open_shop(Address()) is open_shop(Address())


def test_a_workers_process_plays_the_same() -> None:
    async def play(placement: Any) -> list[Any]:
        async with make(ID, placement=placement) as env:
            first = await env.reset(seed=4)
            step = await env.step(first.info["admissible_commands"][0])
            forked = (await env.fork(1))[0]
            last = await forked.step(step.info["admissible_commands"][2])
            await forked.close()
            return [first, step, last]

    assert asyncio.run(play("process")) == asyncio.run(play("inline"))


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({}, UnknownNameError),
        ({"split": "dev", "index": 0}, UnknownNameError),
        ({"split": "test"}, DataError),
        ({"split": "test", "index": 500}, DataError),
        ({"split": "test", "index": -1}, DataError),
        ({"split": "test", "index": True}, DataError),
        ({"split": "test", "index": 0, "products": 10}, DataError),
        ({"split": "test", "index": 0, "products": 10**12}, DataError),
        ({"split": "test", "index": 0, "catalogue": "x"}, DataError),
        ({"split": "test", "index": 0, "max_turns": 0}, DataError),
        ({"split": "test", "index": 0, "data": 7}, DataError),
        ({"split": "test", "index": 0, "data": "/does/not/exist"}, DataError),
        ({"split": "test", "index": 0, "observation": "html"}, UnknownNameError),
    ],
)
def test_a_task_that_is_none_is_told_and_no_visit_begins(params: dict[str, Any], error: type[PalaestraError]) -> None:
    async def play() -> None:
        env = await opened()
        with pytest.raises(error):
            await env.reset(task=Task(env=ID, name="t", params=params))
        with pytest.raises(EnvError, match="reset"):
            await env.step("search[x]")

    asyncio.run(play())


def test_what_an_environment_cannot_be() -> None:
    with pytest.raises(UnknownNameError, match="observation"):
        WebShopEnv(observation="html")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="products"):
        WebShopEnv(products=3)
    with pytest.raises(ConfigError, match="catalogue"):
        load_suite("webshop:test", catalogue=-1)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(PalaestraError, match=r"palaestra\[(webshop|fulltext)\]"):
        asyncio.run(WebShopEnv(products=321).reset(seed=1))
