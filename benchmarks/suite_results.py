"""Random and oracle on the test split of every suite, as docs/results/suites.json and the table of suites.md there.

    python benchmarks/suite_results.py                      # every suite that can be played here; minutes
    python benchmarks/suite_results.py sokoban --episodes 50
    python benchmarks/suite_results.py --table              # only the table, from what is stored

Each is what `palaestra eval SUITE:test --agent AGENT` does. A suite whose tasks depend on data of the user's, or whose
extra is not installed, keeps its earlier row, or has none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec

from palaestra.agents.rollout import RolloutLimits
from palaestra.agents.scripted import OracleAgent, RandomAgent
from palaestra.envs.card import SuiteCard
from palaestra.envs.measured import measured
from palaestra.envs.tasks import load_suite, suite_card, suite_names
from palaestra.errors import PalaestraError
from palaestra.evaluation.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[1]
DATA, PAGE = ROOT / "docs" / "results" / "suites.json", ROOT / "docs" / "results" / "suites.md"
AGENTS = {"random": RandomAgent, "oracle": OracleAgent}
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="names (default: all)")
    parser.add_argument("--episodes", type=int, default=100, help="of each agent on each suite (default: 100)")
    parser.add_argument("--concurrency", type=int, default=8, help="episodes at once (default: 8)")
    parser.add_argument("--table", action="store_true", help="only write the table")
    args = parser.parse_args()
    rows: dict[str, Any] = json.loads(DATA.read_text()) if DATA.exists() else {}
    for name in [] if args.table else args.suites or suite_names():
        card = suite_card(name)
        if card is None or None in card.splits.values():
            print(f"{name}: depends on data of the user's")
            continue
        for agent in agents_of(card):
            row = play(name, agent, args.episodes, args.concurrency)
            print(f"{name} {agent}: {row}", flush=True)
            if "error" not in row:
                rows[f"{name} {agent}"] = row
                DATA.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")
    page = PAGE.read_text(encoding="utf-8")
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{head}{BEGIN}\n{table(dict(sorted(rows.items())))}\n{END}{tail}", encoding="utf-8")


def agents_of(card: SuiteCard) -> list[str]:
    """Who can play it."""
    return [*(["random"] if card.admissible else []), *(["oracle"] if card.oracle else [])]


def play(name: str, agent: str, episodes: int, concurrency: int) -> dict[str, Any]:
    """One evaluation; `error` where it cannot be made here."""
    limits = RolloutLimits(max_turns=suite_card(name).max_turns, concurrency=concurrency)  # type: ignore[union-attr]
    try:
        suite = load_suite(f"{name}:test")
        result = asyncio.run(evaluate(suite, AGENTS[agent](), episodes=episodes, name=f"{name}:test", limits=limits))
    except PalaestraError as error:
        return {"error": str(error)}
    if not result.statuses.get("ok"):
        return {"error": f"no episode can be played: {result.statuses}"}
    return {
        "suite": result.suite,
        "agent": agent,
        "n": result.n,
        "success": msgspec.to_builtins(result.success),
        "reward": round(result.reward, 4),
        "length": round(result.length, 2),
        "statuses": result.statuses,
    }


def table(rows: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| Suite | Agent | n | Success, 95 % interval | Return | Length | Steps/s, environment alone |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows.values():
        rate = row["success"]
        told = f"{100 * rate['value']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
        odd = ", ".join(f"{count} {status}" for status, count in row["statuses"].items() if status != "ok")
        suite = f"`{row['suite']}`" + (f" ({odd})" if odd else "")
        figures = f"{row['n']} | {told} | {row['reward']:.3g} | {row['length']:.3g} | {speed(row['suite'])}"
        lines.append(f"| {suite} | {row['agent']} | {figures} |")
    return "\n".join(lines)


def speed(suite: str) -> str:
    """As `benchmarks/suites.py --write` measured it."""
    figure = measured(suite.partition(":")[0]).get("steps_per_second")
    return f"{figure:,.0f}" if figure else "not measured"


if __name__ == "__main__":
    main()
