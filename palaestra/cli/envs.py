"""List the task suites, environments, models and recipes at hand; one suite by name, with all there is to know."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from palaestra.cli.parser import Parser

if TYPE_CHECKING:
    from palaestra.envs.card import SuiteCard

EXAMPLES = """  palaestra envs
  palaestra envs alfworld
  palaestra envs --json"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument("suite", nargs="?", help="a suite, to be told all about it")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List them."""
    from palaestra.envs.tasks import suite_card, suite_names

    names = suite_names() if args.suite is None else [args.suite]
    cards = {name: suite_card(name) for name in names}
    if args.json:
        known = [_row(name, card) for name, card in cards.items()]
        print(json.dumps(known if args.suite else {"suites": known, **_others()}))
    elif args.suite:
        _tell(_row(args.suite, cards[args.suite]))
    else:
        _list(cards)
    return 0


def _others() -> dict[str, list[str]]:
    from palaestra.agents.models import SHIPPED
    from palaestra.cli.recipes import recipe_paths
    from palaestra.envs.registry import registered_ids

    return {"environments": registered_ids(), "models": sorted(SHIPPED), "recipes": list(recipe_paths())}


def _row(name: str, card: SuiteCard | None) -> dict[str, Any]:
    """A card as JSON values, with what was measured; only the name where its author wrote no card."""
    import msgspec

    from palaestra.envs.measured import measured

    return {"name": name, **(msgspec.to_builtins(card) if card else {}), **measured(name)}


def _tell(row: dict[str, Any]) -> None:
    width = max(map(len, row))
    for key, value in row.items():
        if value not in ("", (), [], {}):
            print(f"{key.replace('_', ' '):{width}}  {_plain(value)}")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_count(size)}" for key, size in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _count(size: int | None) -> str:
    return "as the data" if size is None else f"{size:,}"


def _list(cards: dict[str, SuiteCard | None]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    console.print("suites", style="bold")
    for name, card in cards.items():
        console.print(f"  {name}", style="cyan")
        for line in _facts(name, card) if card else ():
            console.print(Padding(Text(line), (0, 0, 0, 6), expand=False))
    for title, names in _others().items():
        console.print(title, style="bold")
        for name in names:
            console.print(f"  {name}")


def _facts(name: str, card: SuiteCard) -> list[str]:
    """What there is to know before one tries it, in two or three lines."""
    from palaestra.envs.measured import measured

    speed = measured(name).get("steps_per_second")
    told = [
        " / ".join(f"{_count(size)} {split}" for split, size in card.splits.items()),
        f"determinism {card.determinism}",
        *([] if speed is None else [f"{speed:,.0f} steps/s"]),
    ]
    needs = ", ".join(filter(None, (f"palaestra[{card.extra}]" if card.extra else "", card.needs)))
    return [
        card.summary,
        " · ".join(told),
        " · ".join(filter(None, (needs and f"needs {needs}", f"licence: {card.licence}"))),
    ]
