"""One trajectory as a page element: every sampled token with its entropy, every step with its credit."""

from __future__ import annotations

import math

from palaestra.trajectories.record import Node, Trajectory
from palaestra.trajectories.report.markup import Markup, number, render, tag
from palaestra.trajectories.report.plot import picture
from palaestra.trajectories.report.samples import Sample
from palaestra.trajectories.report.scale import Scale
from palaestra.trajectories.report.tokens import Decode
from palaestra.trajectories.views import Turn, credit_kind, turns

MAX_TURNS = 120
MAX_TEXT = 4000

_STRIP_WIDTH, _STRIP_HEIGHT = 800.0, 74.0


def entropy_cap(trajectories: list[Trajectory]) -> float:
    """The entropy in nats that gets the full colour: all but the highest hundredth lie below."""
    entropies = sorted(e for t in trajectories for node in t.nodes if node.sampled for e in node.entropies)
    return max(0.1, entropies[int(0.99 * (len(entropies) - 1))]) if entropies else 1.0


def episode(sample: Sample, name: str, cap: float, decode: Decode | None, *, hidden: bool) -> Markup:
    """The article `name`; hidden ones are shown by the selector."""
    trajectory = sample.trajectory
    shown = turns(trajectory)[:MAX_TURNS]
    largest = max((abs(turn.credit) for turn in shown), default=0.0) or 1.0
    rows = [_turn(turn, credit_kind(trajectory), largest, cap, decode) for turn in shown]
    left_out = len(trajectory.steps) - len(shown)
    more = tag("p", f"… {left_out} more turns", class_="note") if left_out else None
    return tag(
        "article",
        _head(sample),
        _strip(shown, cap),
        tag("ol", rows, class_="turns"),
        more,
        _end(trajectory),
        id=name,
        class_="episode",
        hidden=hidden,
    )


def goal(trajectory: Trajectory) -> str:
    """What the episode was about: the last line of its first observation."""
    lines = [line.strip() for line in trajectory.steps[0].observation.splitlines() if line.strip()]
    if not lines:
        return trajectory.task
    text = lines[-1].removeprefix("Your task is to: ")
    return _clip(text[:1].upper() + text[1:], 160)


def badge(trajectory: Trajectory) -> Markup:
    """Solved, failed, or how the episode was cut off."""
    if trajectory.status not in ("ok", "overflow"):
        return tag("span", trajectory.status, class_="badge cut")
    if trajectory.success:
        return tag("span", "✓ solved", class_="badge solved")
    return tag("span", "✗ failed", class_="badge failed")


def _head(sample: Sample) -> Markup:
    trajectory = sample.trajectory
    facts = [
        sample.source,
        trajectory.kind,
        trajectory.task,
        f"{len(trajectory.steps)} turns",
        f"branched off {trajectory.parent} after {trajectory.branched_at} turns" if trajectory.parent else "",
        f"{trajectory.sampled_tokens} sampled tokens",
        f"return {trajectory.total_reward:g}",
        f"credit shown: {credit_kind(trajectory)}",
        f"seed {trajectory.seed}",
        f"id {trajectory.id}",
    ]
    return tag(
        "header",
        tag("h3", badge(trajectory), " ", goal(trajectory)),
        tag("p", [tag("span", fact) for fact in facts if fact], class_="facts"),
        tag("p", trajectory.error, class_="error") if trajectory.error else None,
    )


def _strip(shown: list[Turn], cap: float) -> Markup | None:
    """Mean entropy of every turn as a small bar chart."""
    if all(turn.entropy is None for turn in shown):
        return None
    x = Scale(0, len(shown), 44, _STRIP_WIDTH - 4)
    y = Scale(0, max(turn.entropy or 0.0 for turn in shown) or cap, _STRIP_HEIGHT - 16, 8)
    width = min(34.0, 0.7 * (x(1) - x(0)))
    bars = [
        tag(
            "rect",
            x=x(turn.index + 0.5) - width / 2,
            y=y(turn.entropy),
            width=width,
            height=max(1.0, y.start - y(turn.entropy)),
            rx=1.5,
            data_tip=f"turn {turn.index + 1}\nmean entropy {turn.entropy:.3f} nats\ncredit {_signed(turn.credit)}",
        )
        for turn in shown
        if turn.entropy is not None
    ]
    step = -(-len(shown) // 24)
    labels = [
        tag("text", k + 1, x=x(k + 0.5), y=_STRIP_HEIGHT - 3, text_anchor="middle", class_="tick")
        for k in range(0, len(shown), step)
    ]
    axis = render(
        tag("path", d=f"M{number(x.start)} {number(y.start)}H{number(x.end)}", class_="axis"),
        tag("text", f"{y.high:.2g}", x=38, y=y.end + 8, text_anchor="end", class_="tick"),
        tag("text", "nats", x=38, y=y.start, text_anchor="end", class_="tick"),
    )
    return tag("div", picture(_STRIP_WIDTH, _STRIP_HEIGHT, "Mean entropy by turn", axis, bars, labels), class_="strip")


def _turn(turn: Turn, kind: str, largest: float, cap: float, decode: Decode | None) -> Markup:
    entropy = f"{turn.entropy:.2f} nats" if turn.entropy is not None else None
    action = _tokens(turn.completion, turn.step.action, cap, decode) if turn.completion else turn.step.action
    return tag(
        "li",
        tag("span", turn.index + 1, class_="turn-number"),
        tag("div", _clip(_dense(turn.step.observation)), class_="observation"),
        tag(
            "div",
            tag("span", action, class_="action"),
            tag("span", entropy, class_="mean", data_tip="mean entropy of the turn's tokens") if entropy else None,
            tag("span", "invalid", class_="badge failed") if turn.step.invalid else None,
            tag("span", f"reward {turn.step.reward:g}", class_="badge solved") if turn.step.reward else None,
            _credit(turn.credit, kind, largest),
            class_="act",
        ),
        class_="turn",
    )


def _tokens(node: Node, action: str, cap: float, decode: Decode | None) -> list[Markup]:
    """One span per token; one for the whole action if there is nothing to decode with."""
    if decode is None:
        mean = sum(node.entropies) / len(node.entropies) if node.entropies else None
        return [_span(action, cap, entropy=mean, logprob=sum(node.logprobs) if node.logprobs else None, allowed="")]
    texts = decode(list(node.ids))
    return [
        _span(
            texts[index] if index < len(texts) else f"#{node.ids[index]}",
            cap,
            entropy=node.entropies[index] if index < len(node.entropies) else None,
            logprob=node.logprobs[index] if index < len(node.logprobs) else None,
            allowed=_allowed(node, index),
        )
        for index in range(len(node.ids))
    ]


def _span(text: str, cap: float, *, entropy: float | None, logprob: float | None, allowed: str) -> Markup:
    lines = [f"“{_visible(text)}”"]
    lines += [f"log-prob {logprob:.3f} (p = {_probability(logprob)})"] if logprob is not None else []
    lines += [f"entropy {entropy:.3f} nats"] if entropy is not None else []
    lines += [allowed] if allowed else []
    heat = 0.0 if entropy is None else min(1.0, max(0.0, entropy / cap))
    class_ = "token special" if text.startswith("<|") else "token"
    return tag("span", _visible(text), class_=class_, style=f"--share:{heat:.3f}", data_tip="\n".join(lines))


def _allowed(node: Node, index: int) -> str:
    choice = node.allowed[index] if node.allowed is not None and index < len(node.allowed) else []
    if not choice:
        return "every token was allowed"
    return f"{len(choice)} tokens were allowed" if len(choice) > 1 else "the only allowed token"


def _credit(value: float, kind: str, largest: float) -> Markup:
    sign = "plus" if value > 0 else "minus" if value < 0 else "zero"
    share = number(100 * abs(value) / largest)
    return tag(
        "span",
        tag("i", style=f"--share:{share}%"),
        tag("b", _signed(value)),
        class_=f"credit {sign}",
        data_tip=f"{kind} {_signed(value)}",
    )


def _end(trajectory: Trajectory) -> Markup | None:
    if not trajectory.final_observation:
        return None
    return tag("div", tag("span", "end", class_="turn-number"), _clip(trajectory.final_observation), class_="final")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if value else "0"


def _probability(logprob: float) -> str:
    return f"{math.exp(min(0.0, logprob)):.3g}"


def _visible(text: str) -> str:
    return text.replace("\n", "⏎") or "∅"


def _dense(text: str) -> str:
    """Without empty lines."""
    return "\n".join(line for line in text.splitlines() if line.strip())


def _clip(text: str, limit: int = MAX_TEXT) -> str:
    return text if len(text) <= limit else text[:limit] + " …"
