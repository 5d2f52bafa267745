"""Steps per second of every suite through our `Env.step`, over the stock package driven its usual way, in the same run.

    python benchmarks/suites.py                  # every suite that can be played here
    python benchmarks/suites.py scienceworld webshop --seconds 20
    python benchmarks/suites.py --write          # also into palaestra/envs/measured.json, for `palaestra envs`

One module of `benchmarks/suite_speed` measures one suite, in a process of its own, so that no suite's threads and
memory are in another's way. The last line is one JSON object; bars are ScienceWorld's and TextWorld's ratio and the
milliseconds of a WebShop search over 100,000 products.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "palaestra" / "envs" / "measured.json"
FOLDER = Path(__file__).with_name("suite_speed")
BARS: dict[tuple[str, str], tuple[float, bool]] = {
    ("scienceworld", "ratio"): (4.0, False),
    ("textworld", "ratio"): (1.5, False),
    ("webshop", "search_ms"): (20.0, True),
}
"""(suite, figure) -> bar, and whether it is the most rather than the least."""
SECONDS = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each suite (default: {SECONDS:g})")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {MEASURED.relative_to(ROOT)}")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := sorted({*args.suites} - {*names}):
        parser.error(f"no measurement of {', '.join(unknown)}; there are {', '.join(names)}")
    if args.one:
        print(json.dumps(importlib.import_module(f"benchmarks.suite_speed.{args.suites[0]}").measure(args.seconds)))
        return
    found = {}
    for name in args.suites or names:
        found[name] = measure(name, args.seconds)
        print(f"{name}: {told(found[name])}", flush=True)
    if args.write:
        write(found)
    print(json.dumps(result(found)))


def measure(name: str, seconds: float) -> dict[str, Any]:
    """The figures of one suite; `error` where it cannot be played here."""
    command = [sys.executable, __file__, name, "--seconds", str(seconds), "--one"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20 * seconds + 600, env=environ)
    except subprocess.TimeoutExpired:
        return {"error": "took too long"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    figures: dict[str, Any] = json.loads(lines[-1])
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in figures.items()}


def told(figures: dict[str, Any]) -> str:
    """Figures for people."""
    return ", ".join(
        f"{key} {value:,}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
    )


def result(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the last line says: `ratio` is the worst of the bars' margins, 1 where it is just reached."""
    margins, bars = [], {}
    for (suite, key), (bar, most) in BARS.items():
        value = found.get(suite, {}).get(key)
        if isinstance(value, float):
            margins.append(bar / value if most else value / bar)
            bars[f"{suite}_{key}"] = {"value": value, "bar": bar, "pass": margins[-1] >= 1}
    worst = min(margins, default=None)
    passed = None if worst is None else worst >= 1
    ratio = None if worst is None else float(f"{worst:.3g}")
    return {"name": "suites", "ratio": ratio, "bar": 1.0, "pass": passed, "bars": bars, "suites": found}


def write(found: dict[str, dict[str, Any]]) -> None:
    """Put the figures of what could be played beside the earlier ones."""
    known = json.loads(MEASURED.read_text())["suites"]
    for name, figures in found.items():
        if "error" not in figures:
            known[name.replace("_", "-")] = {key: figures[key] for key in KEPT if key in figures}
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    content = {"machine": machine, "date": datetime.date.today().isoformat(), "suites": dict(sorted(known.items()))}
    MEASURED.write_text(json.dumps(content, indent=1) + "\n")


KEPT = ("steps_per_second", "stock_steps_per_second", "ratio", "memory_bytes")

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
