"""TextWorld's environment with only what a story asks for, and with admissible commands that are kept up to date.

After every action the package works out anew which rules apply to the whole state. Whether and how a rule applies
depends on the facts that its preconditions can match, so that here only the rules are asked again that the action's
facts concern. Lists, their order and texts are the package's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import textworld
from jericho import UnsupportedGameWarning
from textworld.envs import JerichoEnv
from textworld.envs.wrappers.tw_inform7 import GameData, Inform7Data, StateTracking
from textworld.generator.game import GameProgression

MOST_PLACES = 500
"""States of a game that are kept, each in a few kB."""


def open_game(game: Path, advising: bool) -> Any:
    """What `textworld.start` makes of a game file; `advising` also has it keep a plan."""
    # Jericho knows no game that was made on the fly. Its package says so once, at its import, which others may undo.
    warnings.simplefilter("ignore", UnsupportedGameWarning)
    wanted = textworld.EnvInfos(admissible_commands=True, max_score=True, objective=True, policy_commands=advising)
    env = _Tracking(Inform7Data(_Data(JerichoEnv(wanted))))
    env.load(str(game))
    return env


class _Data(GameData):  # type: ignore[misc]  # its package has no types
    """Of what the game's description says, what a story asks for; the package lists all of it after every command."""

    def _gather_infos(self) -> None:
        self.state["game"] = self._game
        self.state["objective"] = self._game.objective
        self.state["max_score"] = self._game.max_score


class _Rule:
    """One rule, and how facts are matched with its preconditions."""

    def __init__(self, rule: Any, types: Any, given: Mapping[Any, Any]) -> None:
        self.rule = rule
        self.levels = [(one.parameters, _signatures(one, types)) for one in rule.preconditions]
        """Of each precondition its placeholders, and the signatures of the facts that can match it."""
        self.signatures = {signature for _, found in self.levels for signature in found}
        bound = set(chain.from_iterable(parameters for parameters, _ in self.levels)) | set(given)
        self.free = any(one not in bound for one in rule.placeholders)
        """Whether it takes anything else of the right type."""
        self._made: dict[tuple[Any, ...], Any] = {}

    def concerned(self, changed: set[Any]) -> bool:
        """Whether it may apply otherwise than before facts of these signatures changed."""
        return self.free or not self.signatures.isdisjoint(changed)

    def actions(self, facts: Mapping[Any, Sequence[Any]], given: Mapping[Any, Any]) -> list[Any]:
        """The actions by which it applies, in the package's order.

        Args:
            facts: signature -> facts, sorted.
            given: placeholders that mean one thing in the whole game.
        """
        return [self._action(mapping) for mapping in self._matches(facts, dict(given), 0)]

    def _matches(
        self, facts: Mapping[Any, Sequence[Any]], mapping: dict[Any, Any], level: int
    ) -> Iterator[dict[Any, Any]]:
        if level == len(self.levels):
            yield mapping
            return
        parameters, signatures = self.levels[level]
        for signature in signatures:
            for fact in facts.get(signature, ()):
                bound = _bound(mapping, parameters, fact.arguments)
                if bound is not None:
                    yield from self._matches(facts, bound, level + 1)

    def _action(self, mapping: dict[Any, Any]) -> Any:
        key = tuple(mapping.values())
        if key not in self._made:
            self._made[key] = self.rule.instantiate(mapping)
        return self._made[key]


def _signatures(predicate: Any, types: Any) -> list[Any]:
    kinds = types.multi_subtypes([types.get(name) for name in predicate.signature.types])
    return [type(predicate.signature)(predicate.signature.name, [one.name for one in found]) for found in kinds]


def _bound(mapping: dict[Any, Any], parameters: Iterable[Any], arguments: Iterable[Any]) -> dict[Any, Any] | None:
    """`mapping` with `parameters` meaning `arguments`; `None` where two would mean one thing, or one two."""
    changed = mapping
    for parameter, argument in zip(parameters, arguments, strict=True):
        meant = changed.get(parameter)
        if meant is None:
            if argument in changed.values():
                return None
            if changed is mapping:
                changed = mapping.copy()
            changed[parameter] = argument
        elif meant != argument:
            return None
    return changed


class _Place:
    """What can be done in one state of the game."""

    def __init__(self, by_rule: list[list[Any]]) -> None:
        self.by_rule = by_rule
        self.actions = list(chain.from_iterable(by_rule))
        self.admissible: list[str] | None = None
        """Their commands, once somebody has asked."""
        self.events: dict[str, Any] = {}
        """What the interpreter says -> the action that it means, as far as it was asked."""


class _Progression(GameProgression):  # type: ignore[misc]
    """The package's, whose valid actions are kept by rule, and by state for who comes back to one."""

    def __init__(self, game: Any, track_quests: bool, rules: list[_Rule], places: dict[Any, _Place]) -> None:
        super().__init__(game, track_quests)
        self._rules, self._given, self._places = rules, game.kb.types.constants_mapping, places
        self._facts: dict[Any, list[Any]] = {}
        self.place = _Place([[] for _ in rules])
        self._arrive(set(self.state._facts), whole=True)

    def update(self, action: Any) -> None:
        """Do the action."""
        if self.state.apply(action):
            self._arrive({fact.signature for fact in (*action.added, *action.removed)})
        for progression in self.quest_progressions:
            progression.update(action, self.state)

    def _arrive(self, changed: set[Any], whole: bool = False) -> None:
        for signature in changed:
            self._facts[signature] = sorted(self.state.facts_with_signature(signature))
        state = frozenset(chain.from_iterable(self._facts.values()))
        if state not in self._places:
            if len(self._places) >= MOST_PLACES:
                self._places.clear()
            self._places[state] = _Place(
                [
                    self._ask(rule) if whole or rule.concerned(changed) else before
                    for rule, before in zip(self._rules, self.place.by_rule, strict=True)
                ]
            )
        self.place = self._places[state]
        self._valid_actions = self.place.actions

    def _ask(self, rule: _Rule) -> list[Any]:
        if rule.free:
            return list(self.state.all_instantiations(rule.rule, self._given))
        return rule.actions(self._facts, self._given)


class _Texts(dict[Any, str]):
    """What a function says of an action, asked once for each."""

    def __init__(self, say: Callable[[Any], str]) -> None:
        self._say = say

    def __missing__(self, action: Any) -> str:
        self[action] = said = self._say(action)
        return said


class _Tracking(StateTracking):  # type: ignore[misc]
    """The package's, with admissible commands and, if wanted, the plan."""

    def load(self, gamefile: str) -> None:
        super().load(gamefile)
        kb = self._game.kb
        self._rules = [_Rule(rule, kb.logic.types, kb.types.constants_mapping) for rule in kb.rules.values()]
        self._places: dict[Any, _Place] = {}
        self._commands = _Texts(lambda action: str(self._inform7.gen_commands_from_actions([action])[0]))
        self._events = _Texts(self._event)

    def reset(self) -> Any:
        self.state = self._wrapped_env.reset()
        self._send("tw-trace-actions")  # has the interpreter say what happens
        advising = self.request_infos.policy_commands
        self._game_progression = _Progression(self._game, advising, self._rules, self._places)
        self._gather_infos()
        return self.state

    def step(self, command: str) -> tuple[Any, Any, bool]:
        from textworld.envs.wrappers import tw_inform7

        self.state, score, _ = self._wrapped_env.step(command)
        events, self.state["feedback"] = tw_inform7._detect_i7_events_debug_tags(self.state["feedback"])
        for event in events:
            action = self._detect(event.lower())
            if action is not None:
                self._game_progression.update(action)
        self._gather_infos()
        self.state["done"] = self.state["won"] or self.state["lost"]
        return self.state, score, self.state["done"]

    def _list(self) -> list[str]:
        place = self._game_progression.place
        if place.admissible is None:
            place.admissible = sorted({self._commands[action] for action in place.actions})
        return list(place.admissible)

    def _detect(self, event: str) -> Any:
        """The action that is the event; of several the one with most preconditions, the first of those."""
        place = self._game_progression.place
        if event not in place.events:
            found = [one for one in place.actions if self._events[one] == event]
            place.events[event] = max(found, key=lambda action: len(action.preconditions), default=None)
        return place.events[event]

    def _event(self, action: Any) -> str:
        names = self._inform7._get_name_mapping(action)
        return str(self._inform7.kb.inform7_events[action.name].format(**names).lower())

    def _gather_infos(self) -> None:
        self.state["won"] = "*** The End ***" in self.state["feedback"]
        self.state["lost"] = "*** You lost! ***" in self.state["feedback"]
        self.state["admissible_commands"] = self._list()
        if self.request_infos.policy_commands:
            policy = self._game_progression.winning_policy
            self.state["policy_commands"] = self._inform7.gen_commands_from_actions(policy or ())
