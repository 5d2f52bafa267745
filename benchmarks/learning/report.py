"""Write the results of the learning study: tables and pictures from the committed data into docs/results.

    python -m benchmarks.learning.report            docs/results/learning-study.md and its pictures
    python -m benchmarks.learning.report --print    the tables to the terminal, nothing is written

The page's own text is written by hand; what stands between `<!-- begin: NAME -->` and `<!-- end: NAME -->` is replaced.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.learning.charts import curves, heatmaps, intervals
from benchmarks.learning.claims import findings
from benchmarks.learning.results import (
    Record,
    Results,
    Score,
    entropy_roughness,
    late_entropy,
    load_results,
    scores,
    test_success,
    training_success,
    turn_roughness,
)
from benchmarks.learning.study import load_study
from palaestra.errors import DataError, PalaestraError
from palaestra.evaluation.aggregate import (
    Estimate,
    Statistic,
    interquartile_mean,
    probability_of_improvement,
    stratified_bootstrap,
)
from palaestra.files import replace_text

PAGE = Path("docs/results/learning-study.md")
PICTURES = PAGE.parent / "learning-study"
BASELINE = "grpo"


def main(arguments: list[str] | None = None) -> int:
    """Write page and pictures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the tables and write nothing")
    args = parser.parse_args(arguments)
    try:
        results = load_results(load_study())
        if not results:
            raise DataError("there are no finished runs; begin with: python -m benchmarks.learning.run")
        parts = sections(results)
        if args.print:
            print("\n\n".join(parts.values()))
            return 0
        PICTURES.mkdir(parents=True, exist_ok=True)
        for name, svg in pictures(results).items():
            replace_text(PICTURES / f"{name}.svg", svg)
        replace_text(PAGE, fill(PAGE.read_text("utf-8"), parts))
        print(PAGE)
        return 0
    except PalaestraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def fill(page: str, parts: Mapping[str, str]) -> str:
    """The page with each part between its marks.

    Raises:
        DataError: the page has no marks for a part.
    """
    for name, text in parts.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        if begin not in page or end not in page:
            raise DataError(f"{PAGE} has no place for the part {name!r}: {begin} and {end}")
        head, _, rest = page.partition(begin)
        page = f"{head}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    return page


def sections(results: Results) -> dict[str, str]:
    """The parts of the page by name."""
    return {
        "runs": _runs(results),
        "success": "\n\n".join(
            [*(_success_table(name, {name: settings}) for name, settings in results.items()), _pooled(results)]
        ),
        "pictures": _picture_links(results),
        "entropy": "\n\n".join(_entropy_table(name, settings) for name, settings in results.items()),
        "claims": _claims(results),
        "law": _law(results),
    }


def pictures(results: Results) -> dict[str, str]:
    """SVG files by name."""
    drawn = {}
    for name, settings in results.items():
        drawn[f"{name}-success"] = curves(settings, "success", f"{name}: training success", share=True)
        drawn[f"{name}-entropy"] = curves(settings, "entropy", f"{name}: mean entropy (nats)")
        drawn[f"{name}-turns"] = heatmaps(settings, f"{name}: entropy by turn over training")
        rows = {setting: _estimate({name: settings}, setting, test_success) for setting in settings}
        drawn[f"{name}-test"] = intervals(rows, f"{name}: test success, interquartile mean with 95 % interval")
    return drawn


def _runs(results: Results) -> str:
    rows = []
    for name, settings in results.items():
        every = [record for records in settings.values() for record in records]
        base, weights = every[0]["base"], every[0]["weights"][:12]
        seconds = np.median([record["wall_seconds"] for record in every])
        cpu = [record["cpu_seconds"] for record in every if record.get("cpu_seconds")]
        rows.append(
            [
                f"`{name}`",
                str(len(every)),
                _rate(base["value"]),
                f"{seconds:.0f} s",
                f"{np.median(cpu):.0f} s" if cpu else "–",
                f"`{weights}`",
            ]
        )
    head = ["Environment", "Runs", "Base model, test", "Wall time of a run", "CPU time of a run", "Weights, SHA-256"]
    return _table(head, rows)


def _success_table(title: str, results: Results) -> str:
    """Of the settings that every environment has."""
    names = [name for name in next(iter(results.values())) if all(name in settings for settings in results.values())]
    rows = []
    for name in names:
        better = "–" if name == BASELINE else _against(results, name)
        test, training = (_estimate(results, name, score) for score in (test_success, training_success))
        seconds = np.median([r["train_seconds"] for s in results.values() for r in s[name]])
        runs = str(min(len(settings[name]) for settings in results.values()))
        rows.append([f"`{name}`", runs, _points(test), _points(training), better, f"{seconds:.0f}"])
    head = ["Setting", "Runs", "Test success", "Success over training", "P(better than `grpo`)", "Seconds"]
    return f"**{title}**\n\n{_table(head, rows)}"


def _pooled(results: Results) -> str:
    if len(results) < 2 or not set.intersection(*map(set, results.values())):
        return ""
    return _success_table("both environments", results)


def _against(results: Results, name: str) -> str:
    if any(BASELINE not in settings for settings in results.values()):
        return "–"
    ours, theirs = (_strata(results, setting, test_success) for setting in (name, BASELINE))
    found = stratified_bootstrap(probability_of_improvement, ours, theirs)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _entropy_table(title: str, settings: Mapping[str, list[Record]]) -> str:
    first: Score = lambda record: float(record["iterations"]["entropy"][0])  # noqa: E731
    columns: dict[str, tuple[Score, Callable[[float], str]]] = {
        "At the start (nats)": (first, "{:.2f}".format),
        "Last quarter, of the start": (late_entropy, _rate),
        "Change per iteration": (entropy_roughness, _rate),
        "Change per iteration, turn by turn": (turn_roughness, _rate),
    }
    rows = []
    for name, records in settings.items():
        cells = []
        for score, shown in columns.values():
            found = _estimate({title: {name: records}}, name, score)
            cells.append(f"{shown(found.value)} [{shown(found.low)}, {shown(found.high)}]")
        rows.append([f"`{name}`", *cells])
    return f"**{title}**\n\n{_table(['Setting', *columns], rows)}"


def _claims(results: Results) -> str:
    rows = []
    for finding in findings(results):
        claim, d = finding.claim, finding.difference
        unit = 100 if claim.share else 1
        shown = f"{unit * d.value:+.1f} [{unit * d.low:+.1f}, {unit * d.high:+.1f}]"
        pair = f"`{claim.ours}` − `{claim.theirs}`, {claim.measure}"
        rows.append([claim.paper, claim.text, f"`{finding.environment}`", pair, shown, f"**{finding.verdict}**"])
    head = ["Paper", "Claim", "Environment", "Measured as", "Difference (points)", "At this scale"]
    return _table(head, rows) if rows else "No two settings of a claim have been run yet."


def _law(results: Results) -> str:
    rows = []
    for name, settings in results.items():
        for setting, records in settings.items():
            laws = [law for record in records if (law := record.get("entropy_law")) and law.get("ceiling") is not None]
            if laws:
                a, b, ceiling = (np.median([law[key] for law in laws]) for key in ("a", "b", "ceiling"))
                explained = np.median([law["r2"] for law in laws if law["r2"] is not None])
                cells = [f"{a:.2f}", f"{b:.2f}", _rate(ceiling), _rate(explained)]
                rows.append([f"`{name}`", f"`{setting}`", *cells])
    head = ["Environment", "Setting", "a", "b", "Ceiling b − a", "Explained variance"]
    return _table(head, rows)


def _picture_links(results: Results) -> str:
    kinds = {
        "success": "training success by iteration, mean of the runs",
        "test": "test success with 95 % intervals",
        "entropy": "mean entropy by iteration, mean of the runs",
        "turns": "entropy by turn over training, mean of the runs",
    }
    links = [f"![{name}: {text}](learning-study/{name}-{kind}.svg)" for name in results for kind, text in kinds.items()]
    return "\n\n".join(links)


def _estimate(results: Results, setting: str, score: Score, statistic: Statistic = interquartile_mean) -> Estimate:
    return stratified_bootstrap(statistic, _strata(results, setting, score))


def _strata(results: Results, setting: str, score: Score) -> dict[str, list[float]]:
    return {environment: scores(settings[setting], score) for environment, settings in results.items()}


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _rate(value: float) -> str:
    return f"{100 * value:.1f} %"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
