"""Results as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from palaestra.evaluation.intervals import Rate
from palaestra.evaluation.result import EvalResult


def percent(rate: Rate) -> str:
    """`62.5 % [50.1, 73.4]`."""
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def result_table(result: EvalResult) -> Table:
    """One evaluation: a row per kind of task and one for all."""
    table = Table(title=f"{result.agent} on {result.suite}", title_justify="left", caption=_caption(result))
    for name in ("task type", "n", "success [95 %]", "length", "return"):
        table.add_column(name, justify="left" if name == "task type" else "right", no_wrap=True)
    for kind, row in result.by_kind.items():
        table.add_row(kind, str(row.success.n), percent(row.success), f"{row.length:.1f}", f"{row.reward:.3f}")
    table.add_section()
    table.add_row("all", str(result.n), percent(result.success), f"{result.length:.1f}", f"{result.reward:.3f}")
    return table


def _caption(result: EvalResult) -> str:
    odd = [f"{count} {status}" for status, count in result.statuses.items() if status != "ok"]
    parts = [f"{100 * result.invalid_rate:.1f} % of actions refused", f"{result.env_steps} steps", *odd]
    cut = [f"top-k {result.top_k}"] * (result.top_k > 0) + [f"top-p {result.top_p:g}"] * (result.top_p < 1)
    if result.temperature is not None:
        parts = [f"temperature {result.temperature:g}", *cut, *parts]
    return ", ".join(parts + _spent(result))


def _spent(result: EvalResult) -> list[str]:
    """What a model behind an endpoint took."""
    usage = result.usage
    if usage is None:
        return []
    parts = [f"{usage.requests:,} requests", f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens"]
    parts += [f"{usage.retries} retries"] * (usage.retries > 0)
    parts += [f"{usage.uncounted} requests uncounted"] * (usage.uncounted > 0)
    parts += [f"{usage.cut_off} answers cut off"] * (usage.cut_off > 0)
    return parts + ([] if usage.cost is None else [f"cost {usage.cost:.4f}"])
