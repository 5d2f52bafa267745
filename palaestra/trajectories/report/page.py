"""The page around the charts: headline, sections, and the file itself."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from palaestra.errors import PalaestraError
from palaestra.trajectories.report.comparison import agent_class, comparison_bars, kind_table
from palaestra.trajectories.report.entropy import (
    corridor_chart,
    entropy_term,
    outcome_chart,
    outside_chart,
    vital,
)
from palaestra.trajectories.report.episode import badge, entropy_cap, episode, goal
from palaestra.trajectories.report.heatmap import entropy_heatmap
from palaestra.trajectories.report.law import law_chart, law_facts, law_of
from palaestra.trajectories.report.learning import learning_curve, minutes
from palaestra.trajectories.report.markup import Child, Markup, render, tag
from palaestra.trajectories.report.run import (
    AFTER,
    BEFORE,
    Comparable,
    Evaluation,
    Run,
    compared,
    numeric,
)
from palaestra.trajectories.report.samples import Sample, samples
from palaestra.trajectories.report.scale import percent
from palaestra.trajectories.report.tokens import Decode, run_decoder

VITALS = (
    ("reward", "Mean return", False),
    ("length", "Episode length (turns)", False),
    ("invalid_rate", "Refused actions", True),
    ("grad_norm", "Gradient norm", False),
    ("clip_fraction", "Clipped tokens", True),
    ("groups_with_signal", "Groups with signal", False),
    ("staleness_mean", "Age of tokens (updates)", False),
)
"""Key in the metrics, name, and whether it is a share."""

TERMS = (("bonus", "Entropy bonus (nats)"), ("weighted", "Smoothing × β (nats)"), ("beta", "Phase weight β"))
"""Of EPO's loss: what `entropy_term` calls it, and its name."""


def write_report(
    run_dir: str | os.PathLike[str],
    *,
    compare: Mapping[str, Comparable] | None = None,
    decode: Decode | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Write `report.html` of a run: one file, which needs no network and runs no code but its own.

    Args:
        run_dir: the run directory; whatever of it exists is shown, so that it works while the run goes on.
        compare: results to show beside it by name, for example `{"GRPO": "runs/grpo"}`: a run directory, the JSON
            file of an evaluation, or its content.
        decode: token ids to texts, one per id; by default the run's own `model/tokenizer.json`, and without that
            actions are shown whole.
        out: where to write; by default `report.html` in the run directory.

    Raises:
        DataError: if `run_dir` is no run directory or something to compare with cannot be read.
        PalaestraError: if the file cannot be written.
    """
    run = Run.read(run_dir)
    page = report_page(run, compared(run, compare or {}), samples(run), decode or run_decoder(run.path))
    path = run.path / "report.html" if out is None else Path(out)
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_text(page, "utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise PalaestraError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def report_page(run: Run, results: list[Evaluation], chosen: list[Sample], decode: Decode | None) -> Markup:
    """The whole document."""
    script = Markup(_asset("script.js"))
    body = tag(
        "body",
        tag(
            "main",
            _headline(run),
            _outcome(run, results),
            _kinds(run, results),
            _entropy(run),
            _corridor(run),
            _law(run),
            _episodes(chosen, decode),
            _vitals(run),
            _recipe(run),
        ),
        tag("div", id="tip", role="tooltip", hidden=True),
        tag("script", script),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{run.name} · Palaestra"),
        tag("style", Markup(_asset("style.css"))),
    )
    return render(Markup("<!doctype html>\n"), tag("html", head, body, lang="en"))


def _asset(name: str) -> str:
    return (resources.files("palaestra.trajectories.report") / name).read_text("utf-8")


def _policy(script: str) -> str:
    """Nothing may be loaded, and no script runs but ours: a second fence behind escaping."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"


def _section(title: str, note: str, *children: Child) -> Markup | None:
    shown = [child for child in children if child]
    head = (tag("h2", title), tag("p", note, class_="note"))
    return tag("section", *head, *shown, id=title.lower().replace(" ", "-")) if shown else None


def _figure(title: str, chart: Markup | None) -> Markup | None:
    return tag("figure", tag("figcaption", title), chart) if chart else None


def _headline(run: Run) -> Markup:
    before = run.result(BEFORE, "success_warm", "base model")
    after = run.result(AFTER, "success_rl", run.own_label)
    suite = after.suite if after and after.suite else ""
    title = " ".join((run.algorithm or "Training", f"on {suite}" if suite else "run"))
    rates = [_rate(result, own=run.own_label) for result in (before, after) if result]
    return tag(
        "header",
        tag("p", "Palaestra · ", run.name, class_="over"),
        tag("h1", title),
        tag("div", rates[:1], tag("span", "→", class_="arrow") if len(rates) > 1 else None, rates[1:], class_="hero")
        if rates
        else None,
        tag(
            "dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in _facts(run, after)], class_="facts"
        ),
        class_="top",
    )


def _rate(result: Evaluation, own: str) -> Markup:
    rate = result.success
    name = result.label if result.label != own else f"after {own}" if own != "Trained" else "after training"
    return tag(
        "div",
        tag("strong", percent(rate.value)),
        tag("span", name, class_="name"),
        tag("span", f"95 % interval {percent(rate.low)} – {percent(rate.high)}", class_="interval"),
        class_=f"rate {agent_class(result.label, own)}",
    )


def _facts(run: Run, after: Evaluation | None) -> list[tuple[str, str]]:
    get = {key: numeric(value) for key, value in run.summary.items()}
    train, wall, memory = get.get("train_seconds"), get.get("wall_seconds"), get.get("peak_rss_bytes")
    facts = [
        ("held-out tasks", str(after.success.n) if after else ""),
        ("seed", f"{seed:g}" if (seed := get.get("seed")) is not None else ""),
        ("iterations", str(len(run.train)) if run.train else ""),
        ("RL time", minutes(train) if train is not None else ""),
        ("whole job", minutes(wall) if wall is not None else ""),
        ("peak memory", f"{memory / 1e9:.2f}\u202fGB" if memory is not None else ""),
        ("environment steps", _count(get.get("env_steps"))),
        ("tokens generated", _count(get.get("tokens_generated"))),
        ("tokens trained", _count(get.get("tokens_trained"))),
    ]
    return [(name, value) for name, value in facts if value]


def _count(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e6:.2f}\u202fM" if value >= 1e6 else f"{value:,.0f}".replace(",", "\u202f")


def _outcome(run: Run, results: list[Evaluation]) -> Markup | None:
    base = run.result(BEFORE, "success_warm", "base model")
    charts = (
        _figure("Learning curve", learning_curve(run, base)),
        _figure("Held-out success", comparison_bars(results, run.own_label)),
    )
    note = "Success while training and on tasks that training never saw. Whiskers are 95 % Wilson intervals."
    return _section("What was learned", note, tag("div", charts, class_="pair") if any(charts) else None)


def _kinds(run: Run, results: list[Evaluation]) -> Markup | None:
    note = "Held-out success by the type of task; point at a cell for its interval."
    return _section("By task type", note, kind_table(results, run.own_label))


def _entropy(run: Run) -> Markup | None:
    note = (
        "How undecided the policy was, in nats per sampled token: by the turn of the episode (left; dark is decided, "
        "bright is exploring), and for solved and failed episodes apart (right)."
    )
    charts = (_figure("By turn, over training", entropy_heatmap(run)), _figure("By outcome", outcome_chart(run)))
    return _section("Entropy", note, tag("div", charts, class_="pair") if any(charts) else None)


def _corridor(run: Run) -> Markup | None:
    chart = corridor_chart(run)
    if chart is None:
        return None
    note = (
        "EPO remembers the mean entropy of earlier iterations and penalises tokens that leave a corridor around it. "
        "Left: the corridor and the entropy in it. Right: the tokens that it held on to. Below: the terms of the loss."
    )
    pair = (_figure("Corridor", chart), _figure("Tokens outside", outside_chart(run)))
    terms = [_figure(name, entropy_term(run, key, name)) for key, name in TERMS]
    row = tag("div", terms, class_="grid-of-three") if any(terms) else None
    return _section("The entropy corridor", note, tag("div", pair, class_="pair"), row)


def _law(run: Run) -> Markup | None:
    if not run.train:
        return None
    note = (
        "Success that is bought with entropy: the law R = b − a exp(H) of Cui et al. (arXiv 2505.22617), fitted by "
        "least squares. Where it holds, the ceiling at H = 0 is what more training of this kind can reach."
    )
    chart = _figure("Success against entropy", law_chart(run))
    return _section("Entropy and success", note, law_facts(law_of(run)), chart)


def _vitals(run: Run) -> Markup | None:
    charts = [_figure(name, vital(run, key, name, share=share)) for key, name, share in VITALS]
    grid = tag("div", charts, class_="grid-of-three") if any(charts) else None
    return _section("Vitals", "The health of the optimisation; smoothed over faint single iterations.", grid)


def _episodes(chosen: list[Sample], decode: Decode | None) -> Markup | None:
    if not chosen:
        return None
    cap = entropy_cap([sample.trajectory for sample in chosen])
    names = [f"episode-{index}" for index in range(len(chosen))]
    articles = [
        episode(sample, name, cap, decode, hidden=index > 0)
        for index, (sample, name) in enumerate(zip(chosen, names, strict=True))
    ]
    entries = [_entry(sample, name, index) for index, (sample, name) in enumerate(zip(chosen, names, strict=True))]
    note = (
        "Every token that the policy sampled, the deeper its colour the more undecided the policy was; at the right "
        "the credit that the step got. Point at a token for its figures."
    )
    return _section(
        "Episodes",
        note,
        _controls(chosen, cap),
        tag("div", tag("ul", entries, class_="entries", id="entries"), tag("div", articles), class_="browser"),
    )


def _controls(chosen: list[Sample], cap: float) -> Markup:
    sources = list(dict.fromkeys(sample.source for sample in chosen))
    scale = tag("span", "0", tag("i"), f"{cap:.2g} nats", class_="heat-scale")
    return tag(
        "div",
        _select("source", "when", ["any", *sources]),
        _select("outcome", "outcome", ["any", "solved", "failed"]),
        scale,
        class_="controls",
    )


def _select(name: str, label: str, options: list[str]) -> Markup:
    choices = [tag("option", option, value="" if option == "any" else option) for option in options]
    return tag("label", label, tag("select", choices, id=f"by-{name}"))


def _entry(sample: Sample, name: str, index: int) -> Markup:
    trajectory = sample.trajectory
    outcome = "solved" if trajectory.success else "failed"
    facts = f"{sample.source} · {len(trajectory.steps)} turns"
    button = tag(
        "button",
        tag("span", goal(trajectory), class_="goal"),
        tag("span", badge(trajectory), facts, class_="sub"),
        type="button",
        aria_pressed="false" if index else "true",
        data_show=name,
    )
    return tag("li", button, data_source=sample.source, data_outcome=outcome)


def _recipe(run: Run) -> Markup | None:
    if not run.recipe:
        return None
    return tag("section", tag("details", tag("summary", "The resolved recipe"), tag("pre", run.recipe)), id="recipe")
