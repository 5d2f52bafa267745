"""Import of `palaestra` against import of `gymnasium`, each in a fresh interpreter, taking turns.

Palaestra imports its public names on first use, so the time of touching each of them (`palaestra.Env`, ...) is reported
too, and the time of all of them together beside Gymnasium's import is a second ratio without a bar.

    python benchmarks/import_time.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

BAR = 0.75

TIMED = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
{statement}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
heavy = [name for name in ("torch", "transformers", "ray", "numpy", "gymnasium") if name in sys.modules]
print(json.dumps({{"wall": wall, "cpu": cpu, "heavy": heavy, "modules": len(sys.modules)}}))
"""

NEEDING_MORE = {"as_gymnasium", "train"}
"""Public names that are another package's business: Gymnasium's bridge, and training, which is torch's."""

OURS, TOUCHED, BASELINE = "import palaestra", "everything", "import gymnasium"


def touch(names: list[str]) -> str:
    return "import palaestra; " + "; ".join(f"palaestra.{name}" for name in names)


def timed(statement: str) -> dict[str, Any]:
    code = TIMED.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    middle = {key: round(1e3 * statistics.median(run[key] for run in runs), 2) for key in ("wall", "cpu")}
    return {
        "wall_ms": middle["wall"],
        "cpu_ms": middle["cpu"],
        "modules": runs[0]["modules"],
        "heavy": runs[0]["heavy"],
    }


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    import palaestra

    public = [name for name in palaestra.__all__ if not name.startswith("_")]
    statements = {OURS: OURS, BASELINE: BASELINE, TOUCHED: touch([name for name in public if name not in NEEDING_MORE])}
    statements |= {f"palaestra.{name}": touch([name]) for name in public}
    for statement in statements.values():
        timed(statement)  # writes the bytecode, warms the file cache
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in statements}
    for _ in range(rounds):
        for name, statement in statements.items():
            runs[name].append(timed(statement))
    return {name: medians(of) for name, of in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    found = measure(parser.parse_args().rounds)
    for name, figures in found.items():
        print(f"{name:28} {figures['wall_ms']:8.2f} ms  {figures['cpu_ms']:8.2f} ms CPU  {figures['modules']} modules")
    ratio = found[OURS]["wall_ms"] / found[BASELINE]["wall_ms"]
    ours = [figures for name, figures in found.items() if name.removeprefix("palaestra.") not in NEEDING_MORE]
    clean = not {"torch", "ray"} & {heavy for figures in ours for heavy in figures["heavy"]}
    result = {
        "name": "import_time",
        "ratio": round(ratio, 4),
        "bar": BAR,
        "pass": ratio <= BAR and clean,
        "cpu_ratio": round(found[OURS]["cpu_ms"] / found[BASELINE]["cpu_ms"], 4),
        "touched_ratio": round(found[TOUCHED]["wall_ms"] / found[BASELINE]["wall_ms"], 4),
        "torch_and_ray_absent": clean,
        "milliseconds": {name: figures["wall_ms"] for name, figures in found.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
