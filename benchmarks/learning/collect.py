"""Collect finished runs into one JSON file and one picture of their learning curves.

    python benchmarks/learning/collect.py docs/results/small runs/small/epo-0 runs/small/grpo-0 ...

writes `docs/results/small.json` (each run's summary, evaluations and success by iteration) and `docs/results/small.svg`
(training success, a moving mean of nine iterations: a thin line a run, a thick one for each algorithm's median).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from palaestra.trajectories.report.plot import Plot

COLOURS = {"epo": "#0072b2", "grpo": "#e08a00"}
STYLE = """svg{font:12px system-ui,sans-serif;background:#fff}text{fill:#555}.grid{stroke:#e5e5e5}.axis{stroke:#999}
polyline,path{fill:none}.thin{opacity:.35;stroke-width:1}.thick{stroke-width:2.5}"""
WINDOW = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="path of the results, without suffix")
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    args = parser.parse_args()
    runs = [read(path) for path in args.runs]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(runs, indent=1) + "\n")
    args.out.with_suffix(".svg").write_text(picture(runs))
    for run in runs:
        print(
            run["name"], *(f"{k[8:]}={100 * v['value']:.1f}" for k, v in run["summary"].items() if k[:8] == "success_")
        )


def read(path: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return {
        "name": path.name,
        "summary": {k: v for k, v in json.loads((path / "summary.json").read_text()).items() if v and k != "report"},
        "success": [round(row["success"], 4) for row in rows if row["kind"] == "train"],
        "entropy": [round(row["entropy"], 4) for row in rows if row["kind"] == "train"],
        "validation": [{"iteration": r["iteration"], **r["success"]} for r in rows if r["kind"] == "eval"],
        "test": {
            tag: json.loads(file.read_text())["by_kind"]
            for tag in ("warm", "rl")
            if (file := path / "eval" / f"{tag}.json").exists()
        },
    }


def picture(runs: list[dict[str, Any]]) -> str:
    longest = max(len(run["success"]) for run in runs)
    plot = Plot(720, 340, (0.0, float(longest)), (0.0, 1.0), "Training success by iteration", percent=True)
    curves: dict[str, list[list[float]]] = defaultdict(list)
    for run in runs:
        algorithm = run["summary"]["algorithm"]
        curves[algorithm].append(smooth(run["success"]))
        plot.line([float(i) for i in range(len(run["success"]))], curves[algorithm][-1], f"thin {algorithm}")
    for algorithm, members in curves.items():
        if len(members) > 1:
            median = [statistics.median(values) for values in zip(*members, strict=False)]
            plot.line([float(i) for i in range(len(median))], median, f"thick {algorithm}")
    colours = "".join(f".{name}{{stroke:{colour}}}" for name, colour in COLOURS.items())
    labels = "".join(
        f'<text x="560" y="{250 + 18 * i}" style="fill:{COLOURS[name]}">{name.upper()}</text>'
        for i, name in enumerate(curves)
    )
    svg = str(plot.svg()).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return svg.replace(">", f"><style>{STYLE}{colours}</style>{labels}", 1) + "\n"


def smooth(values: list[float]) -> list[float]:
    half = WINDOW // 2
    return [statistics.fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


if __name__ == "__main__":
    main()
