"""Generated questions: understood again from their words, each has one answer in the whole world."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.envs.search.questions import LEVELS, Question, ask
from palaestra.envs.search.schema import RELATIONS, Relation
from palaestra.envs.search.world import World, build_world

Things = set[int | str]


def inside(template: str, text: str) -> str | None:
    """What stands for {x} in `text`, if it is made from `template`."""
    before, after = template.split("{x}")
    fits = text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after)
    return text[len(before) : len(text) - len(after)] if fits else None


class Reader:
    """Understands noun phrases and questions in every way that the templates allow, over all facts."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.called: dict[str, Things] = {}
        for entity in world.entities:
            for name in {entity.name, entity.alias} - {""}:
                self.called.setdefault(name, set()).add(entity.id)

    def things(self, text: str) -> Things:
        """All that a noun phrase may mean."""
        found = set(self.called.get(text, ()))
        for relation in RELATIONS:
            if relation.phrase and (x := inside(relation.phrase, text)):
                found |= self.objects(relation, x)
            if relation.back and (x := inside(relation.back.phrase, text)):
                found |= self.subjects(relation, x)
        return found

    def objects(self, relation: Relation, text: str) -> Things:
        subjects = self.things(text)
        return {thing for subject, thing in self.world.facts[relation.name].items() if subject in subjects}

    def subjects(self, relation: Relation, text: str) -> Things:
        objects = self.things(text) if relation.object else {text}
        return {subject for subject, thing in self.world.facts[relation.name].items() if thing in objects}

    def answers(self, text: str) -> Things:
        """All that may answer a question."""
        return {*self.plain(text), *self.compared(text), *self.both(text)}

    def plain(self, text: str) -> Iterator[int | str]:
        for relation in RELATIONS:
            for template in relation.ask:
                if x := inside(template, text):
                    yield from self.objects(relation, x)
            if relation.back and (x := inside(relation.back.ask, text)):
                yield from self.subjects(relation, x)
            if relation.back and relation.back.how_many and (x := inside(relation.back.how_many, text)):
                objects = self.things(x)
                yield str(sum(thing in objects for thing in self.world.facts[relation.name].values()))

    def compared(self, text: str) -> Iterator[int | str]:
        for relation in RELATIONS:
            for larger, template in enumerate(relation.compare):
                rest = inside(template.replace("{a} or {b}", "{x}"), text)
                for cut in re.finditer(" or ", rest or ""):
                    sides = [self.things(rest[: cut.start()]), self.things(rest[cut.end() :])] if rest else []
                    if all(side & set(self.world.facts[relation.name]) for side in sides):
                        yield self.extreme(relation, set.union(*sides), bool(larger))

    def extreme(self, relation: Relation, things: Things, larger: bool) -> int | str:
        facts = self.world.facts[relation.name]
        ranked = sorted(
            (float(re.sub(r"[^\d]", "", str(facts[t]))), t) for t in things if isinstance(t, int) and t in facts
        )
        assert ranked[0][0] < ranked[-1][0]
        return ranked[-1 if larger else 0][1]

    def both(self, text: str) -> Iterator[int | str]:
        match = re.fullmatch(r"(?:Who|Which (\w+)) (.*)\?", text)
        if not match:
            return
        for cut in re.finditer(" and ", match[2]):
            first, second = match[2][: cut.start()], match[2][cut.end() :]
            for subject in self.true_of(first) & self.true_of(second):
                if isinstance(subject, int) and self.world.entities[subject].kind == (match[1] or "person"):
                    yield subject

    def true_of(self, clause: str) -> Things:
        found: Things = set()
        for relation in RELATIONS:
            if relation.clause and (x := inside(relation.clause, clause)):
                found |= self.subjects(relation, x)
        return found


def gold(world: World, question: Question) -> Things:
    named: Things = {e.id for e in world.entities if e.name == question.answers[0]}
    return named or {question.answers[0]}


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["train", "validation", "test"]),
    st.integers(0, 1000),
    st.sampled_from([100, 150, 300]),
    st.sampled_from(sorted(LEVELS)),
)
def test_every_question_has_one_answer_in_the_whole_world(split: str, number: int, pages: int, level: str) -> None:
    world = build_world(split, number, pages)
    reader = Reader(world)
    asked = ask(world, level, 40, "test")
    assert len(asked) == 40
    for question in asked:
        assert reader.answers(question.text) == gold(world, question), question


@pytest.mark.parametrize(("level", "hops"), [("easy", {1}), ("medium", {2}), ("hard", {3, 4})])
def test_levels_are_counted_in_hops(level: str, hops: set[int]) -> None:
    asked = ask(build_world("test", 0, 300), level, 200, "test")
    assert {question.hops for question in asked} == hops
    assert len({question.text for question in asked}) == 200
    kinds = {"chain"} if level == "easy" else {"chain", "comparison", "intersection", "count"}
    assert {question.kind for question in asked} == kinds


def test_supporting_pages_lead_from_one_to_the_next() -> None:
    """Each is named in the question or on a page before it, or names what is; one of them has the answer."""
    from palaestra.envs.search.pages import write_pages

    world = build_world("test", 1, 300)
    pages = {page.title: page for page in write_pages(world, "test")}
    for question in ask(world, "hard", 200, "test"):
        known = [question.text]
        for place, title in enumerate(question.pages):
            page = pages[title]
            names = {title, *page.aliases}
            linked = any(name in text for name in names for text in known)
            searched = question.queries and question.kind == "intersection" and place == len(question.pages) - 1
            leads_here = any(name in page.text for text in known for name in pages if name in text)
            assert linked or searched or leads_here, (question, title)
            known.append(page.text)
        if question.kind in ("chain", "intersection"):
            assert any(answer in text for answer in question.answers for text in known[1:]), question


def test_questions_call_things_by_their_aliases_now_and_then() -> None:
    world = build_world("train", 3, 500)
    aliases = [entity.alias for entity in world.entities if entity.alias]
    asked = ask(world, "easy", 500, "test")
    assert any(alias in question.text for alias in aliases for question in asked)
    assert any(len(question.answers) > 1 and question.answers[1] in aliases for question in asked)


def test_counts_and_measures_may_be_said_in_other_ways() -> None:
    world = build_world("train", 3, 500)
    answers = {question.answers for level in LEVELS for question in ask(world, level, 500, "test")}
    assert ("2", "two") in answers
    assert any(a[0].endswith(" km") and a[1:] == (a[0][:-3], f"{a[0][:-3]} kilometres") for a in answers)
