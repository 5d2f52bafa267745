"""One run of each suite's recipe, as docs/results/suite-training.json, its curves and the table of suite-training.md.

palaestra train sokoban out=runs/suites/sokoban          # and the other recipes, then
python -m benchmarks.learning.suites runs/suites/*
python -m benchmarks.learning.suites --table                # only picture and table, from what is stored
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.learning.collect import STYLE, read, smooth
from palaestra.trajectories.report.plot import Plot

OUT = Path(__file__).resolve().parents[2] / "docs" / "results" / "suite-training"
COLOURS = ("#0072b2", "#e08a00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="run directories, named by their suites")
    parser.add_argument("--table", action="store_true", help="only draw what is stored")
    args = parser.parse_args()
    if not args.runs and not args.table:
        parser.error("name run directories, or --table")
    data = OUT.with_suffix(".json")
    stored = {run["name"]: run for run in json.loads(data.read_text())} if data.exists() else {}
    stored |= {path.name: read(path) for path in args.runs}
    runs = [stored[name] for name in sorted(stored)]
    data.write_text(json.dumps(runs, indent=1) + "\n")
    OUT.with_suffix(".svg").write_text(picture(runs))
    page = OUT.with_suffix(".md").read_text()
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    OUT.with_suffix(".md").write_text(f"{head}{BEGIN}\n{table(runs)}\n{END}{tail}")


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| Recipe | Tests | Random | Base model | After EPO | Oracle | RL, s |", "|---|--:|--:|--:|--:|--:|--:|"]
    for run in runs:
        found = run["summary"]
        rates = [told(found.get(f"success_{tag}")) for tag in ("random", "warm", "rl", "oracle")]
        lines.append(f"| `{run['name']}` | {found['success_rl']['n']} | {' | '.join(rates)} | {seconds(found)} |")
    return "\n".join(lines)


def told(rate: dict[str, float] | None) -> str:
    return f"{100 * rate['value']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]" if rate else "none"


def seconds(summary: dict[str, Any]) -> str:
    return f"{summary['train_seconds']:.0f}" if "train_seconds" in summary else ""


def picture(runs: list[dict[str, Any]]) -> str:
    longest = max(len(run["success"]) for run in runs)
    plot = Plot(720, 340, (0.0, float(longest)), (0.0, 1.0), "Training success by iteration", percent=True)
    colours, labels = "", ""
    for i, (run, colour) in enumerate(zip(runs, COLOURS, strict=False)):
        plot.line([float(x) for x in range(len(run["success"]))], smooth(run["success"]), f"thick {run['name']}")
        colours += f".{run['name']}{{stroke:{colour}}}"
        labels += f'<text x="600" y="{48 + 18 * i}" style="fill:{colour}">{run["name"]}</text>'
    svg = str(plot.svg()).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return svg.replace(">", f"><style>{STYLE}{colours}</style>{labels}", 1) + "\n"


if __name__ == "__main__":
    main()
