"""AEPO's rollout half (Dong et al., arXiv 2510.14545): the rollouts of a task are a tree that grows where the agent
becomes less certain than it was.

    one rollout is played to its end        its entropies say how many of the k begin at the prompt        (2), (4), (5)
    then round by round, every path that is alive:
        the agent says what it does next    H_t, the entropy at the beginning of that                             (1)
        the path may branch                 by H_t - H_init and by how often it just did                    (6) to (9)
        the environment takes the step      in the branch too, once its own agent has spoken
    whenever none is alive                  one more begins at the prompt, until there are k

A branch goes on behind the tool result, before the action that its parent chose there, in a fork of the environment
and with draws of its own. Rounds wait for the slowest, so that nothing depends on timing: the order in which paths may
branch is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from palaestra.agents.agent import Agent, Decision, SupportsFork
from palaestra.agents.attempt import Attempt, together
from palaestra.agents.branching import BranchRule, Rounding, measured_entropy, next_consecutive, split_budget
from palaestra.agents.episode import Episode
from palaestra.agents.planner import Setting
from palaestra.errors import ConfigError, PalaestraError
from palaestra.seeds import derive_seed
from palaestra.trajectories.record import Trajectory


@dataclass(frozen=True, slots=True)
class TreePlanner:
    """Plays each group as a tree of rollouts."""

    rule: BranchRule = field(default_factory=BranchRule)
    """Where a path branches."""
    begin: int | None = None
    """How many begin at the prompt, at most k; `None` lets the first rollout's entropies decide."""
    beta: float = 0.5
    """Sensitivity of that."""
    rounding: Rounding = "code"
    """As in `split_budget`."""
    positions: int = 20
    """N_tok: tokens of a segment that are measured."""
    lagged: bool = False
    """Decide by the segment before the tool result, as the released code does, and not by the one behind it."""

    def check(self, agent: Agent) -> None:
        """Look whether the agent's conversations can be forked.

        Raises:
            ConfigError: they cannot.
        """
        if not isinstance(agent, SupportsFork):
            raise ConfigError(
                f"rollouts that branch need an agent with fork(session, *, seed, env); {agent.name!r} has none: give "
                "it one, or play without branching"
            )

    async def play(self, group: Sequence[Episode], setting: Setting) -> list[Trajectory]:
        """One trajectory per episode; `meta["branching"]` of each says how its path went.

        Raises:
            PalaestraError: the agent's engine does not report entropies, and the rule needs them.
        """
        return await _Tree(self, group, setting).grow()


@dataclass(slots=True, eq=False)
class _Path:
    """One rollout of the tree."""

    index: int
    """Of its episode in the group."""
    attempt: Attempt
    begun: bool = False
    initial: float = 0.0
    """H_init, which a branch has from its parent."""
    entropies: list[float] = field(default_factory=list)
    """Of its segments, in nats per token; those that its parent wrote included."""
    consecutive: int = 0
    """l: at how many tool results in a row it has just branched."""
    longest: int = 0
    """The highest that was."""
    children: int = 0

    @property
    def at_result(self) -> bool:
        """Whether its last step was its own: what it says now is the first thing that anybody says about a result."""
        record = self.attempt.record
        return len(record.steps) > (record.branch_of[1] if record.branch_of else 0)

    @property
    def retriable(self) -> bool:
        """Whether it can be played again from the start, with nobody else the wiser."""
        attempt = self.attempt
        again = attempt.record.attempt < attempt.limits.retries
        return attempt.failed and again and not self.children and attempt.record.branch_of is None

    async def next(self) -> Decision | None:
        """Begin where that is still to be done, and decide."""
        if not self.begun:
            self.begun = True
            await self.attempt.stage(self.attempt.begin)
            if self.attempt.failed:
                return None
        return await self.attempt.stage(self.attempt.decide)

    async def finish(self) -> None:
        """Grade, if it ran to its end, and close."""
        steps = self.attempt.result.steps
        if not self.attempt.failed and steps and (steps[-1].terminated or steps[-1].truncated):
            await self.attempt.stage(self.attempt.grade)
        await self.attempt.stage(self.attempt.end)


class _Tree:
    """One group on its way."""

    def __init__(self, planner: TreePlanner, group: Sequence[Episode], setting: Setting) -> None:
        self.planner, self.group, self.setting = planner, group, setting
        self.probing = planner.begin is None
        """Whether the first rollout, which does not branch, has yet to say how many begin at the prompt."""
        self.waiting = 1 if planner.begin is None else min(max(planner.begin, 1), len(group))
        """How many are still to begin there before anything else does."""
        self.free = list(range(len(group)))
        """Episodes that nobody plays yet; those that wait come first."""
        self.alive: list[_Path] = []
        self.results: dict[int, Trajectory] = {}
        self.rounds = 0
        """In which something could branch."""
        first = group[0]
        self.seed = derive_seed(first.seed, "branching", first.group or first.id)

    async def grow(self) -> list[Trajectory]:
        """Play until there is a trajectory of every episode."""
        try:
            while self.alive or self.free:
                self._start()
                await self._round()
        finally:
            await together([path.attempt.stage(path.attempt.end) for path in self.alive])
        return [self.results[index] for index in range(len(self.group))]

    def _start(self) -> None:
        """Begin at the prompt, as many as were planned and have a place; else one, if otherwise nobody were alive."""
        while self.waiting and len(self.alive) < self.setting.places:
            self.waiting -= 1
            self._sprout()
        if not self.alive:
            self._sprout()

    def _sprout(self) -> None:
        index = self.free.pop(0)
        self.alive.append(_Path(index, self._attempt(index, 0)))

    def _attempt(self, index: int, number: int) -> Attempt:
        setting = self.setting
        return Attempt(self.group[index], setting.agent, setting.make_env, setting.limits, number)

    async def _round(self) -> None:
        """Every path that is alive decides, may branch, and takes its step."""
        paths = list(self.alive)
        decided = await together([path.next() for path in paths])
        going = [(path, decision) for path, decision in zip(paths, decided, strict=True) if decision is not None]
        for path, decision in going:
            self._measure(path, decision)
        if not self.probing:
            await self._branch([path for path, _ in going])
        going = [(path, decision) for path, decision in going if not path.attempt.failed]
        steps = [path.attempt.stage(partial(path.attempt.take, decision)) for path, decision in going]
        over = await together(steps)
        on = [path for (path, _), ended in zip(going, over, strict=True) if ended is False]
        self.rounds += not self.probing
        await self._settle([path for path in paths if path not in on])

    def _measure(self, path: _Path, decision: Decision) -> None:
        """(1): how uncertain the agent was at the beginning of what it has just said."""
        entropy = self._entropy(path, decision)
        if not path.entropies:
            path.initial = entropy
        path.entropies.append(entropy)

    def _entropy(self, path: _Path, decision: Decision) -> float:
        planner, session = self.planner, path.attempt.session
        node = session.nodes[decision.completion] if session is not None and decision.completion >= 0 else None
        unknown = node is None or bool(node.ids and not node.entropies)
        if unknown and (planner.rule.gamma or planner.begin is None):
            raise PalaestraError(
                f"the agent {self.setting.agent.name!r} does not say how uncertain it is (its engine reports no "
                "entropies), so nothing can branch by it; use another engine, or play without branching"
            )
        return measured_entropy(node.entropies, planner.positions) if node else 0.0

    async def _branch(self, paths: Sequence[_Path]) -> None:
        """(6) to (9) at the last tool result of each path, in random order, while episodes are left."""
        draws = random.Random(derive_seed(self.seed, self.rounds))
        visits = [(path, draws.random()) for path in paths if path.at_result]
        draws.shuffle(visits)
        left = min(self.setting.places - len(self.alive), len(self.free) - self.waiting)
        rule = self.planner.rule
        wish = [path for path, uniform in visits if rule.branches(self._change(path), path.consecutive, uniform)]
        chosen = list(zip(wish[:left], self.free[self.waiting :], strict=False))
        forks = [path.attempt.stage(partial(path.attempt.branch, self.group[index])) for path, index in chosen]
        forked = await together(forks)
        branched = {path: index for (path, index), done in zip(chosen, forked, strict=True) if done}
        for path, _ in visits:
            path.consecutive = next_consecutive(path.consecutive, path in branched)
            path.longest = max(path.longest, path.consecutive)
        for path, index in branched.items():
            self._adopt(path, index)

    def _change(self, path: _Path) -> float:
        """(6)."""
        return path.entropies[-2 if self.planner.lagged else -1] - path.initial

    def _adopt(self, parent: _Path, index: int) -> None:
        """The branch is alive from the next round on."""
        self.free.remove(index)
        parent.children += 1
        child = _Path(
            index,
            parent.attempt.fetch(),
            begun=True,
            initial=parent.initial,
            entropies=parent.entropies[:-1],
            consecutive=parent.consecutive,
        )
        self.alive.append(child)

    async def _settle(self, ended: Sequence[_Path]) -> None:
        """Close what has ended; what failed on its own account is played again, the rest is final."""
        await together([path.finish() for path in ended])
        for path in ended:
            place = self.alive.index(path)
            if path.retriable:
                number = path.attempt.record.attempt + 1
                self.alive[place] = _Path(path.index, self._attempt(path.index, number))
                continue
            del self.alive[place]
            self._finish(path)

    def _finish(self, path: _Path) -> None:
        self.results[path.index] = record = path.attempt.result
        record.meta["branching"] = {"children": path.children, "consecutive": path.longest}
        if self.probing:
            self.probing = False
            record.meta["split"] = self._split(path.entropies)
        if self.setting.on_done:
            self.setting.on_done(record)

    def _split(self, entropies: Sequence[float]) -> dict[str, Any]:
        """(2), (4), (5): how many begin at the prompt, by the segments of the first rollout, which is one of them."""
        root, *tools = entropies or [0.0]
        planner = self.planner
        split = split_budget(len(self.group), root, tools, beta=planner.beta, rounding=planner.rounding)
        self.waiting = split.begin - 1
        return {"begin": split.begin, "root": root, "tools": tools}
