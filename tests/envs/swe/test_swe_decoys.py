"""Decoys: what passes as a real test fails as a decoy, and nothing else in the file changes."""

import unittest
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.envs.swe.decoys import Decoys, functions_of


def altered(source: str, test: str = "test_it", seed: int = 0) -> str | None:
    decoys = Decoys(source)
    function = decoys.function(test)
    assert function is not None
    made = decoys.alterations(function, Random(seed))
    return None if made is None else decoys.altered([made])


def passes(source: str, test: str = "test_it") -> bool:
    space: dict[str, Any] = {"pytest": pytest, "unittest": unittest, "__name__": "tests"}
    exec(compile(source, "tests.py", "exec"), space)
    *classes, name = test.split("::")
    run: Callable[[], object] = getattr(space[classes[0]](), name) if classes else space[name]
    try:
        run()
    except BaseException:
        return False
    return True


BODIES = [
    "assert 1 + 1 == 2",
    "assert 2 == 1 + 1, 'a message'",
    "assert ('a' + 'b') == ('ab')",
    "assert 'x\\n\\ty'.strip() == 'x\\n\\ty'",
    "assert r'\\d'.lower() == r'\\d'",
    "assert b'ab'.upper() == b'AB'",
    "assert sorted([2, 1]) == [\n        1,  # one\n        2,\n    ]",
    "assert dict(a=1) == {'a': 1}",
    "assert -abs(-3) == -3",
    "assert not ''",
    "assert 'é' + 'a' == 'éa'  # ü",
    "x = y = [1]\n    assert x is y",
    "x = [1]\n    assert x != []",
    "assert 'a' in 'abc'",
    "assert 'd' not in 'abc'",
    "assert 1 < 2 < 3",
    "assert 1 < 2",
    "assert all([True, True])",
    "assert True and (1 or 0)",
    "a = b = 'text'\n    assert a == b",
    "a = b = 'text'\n    assert (\n        a\n        == b\n    )",
    "with pytest.raises(IndexError):\n        [].pop()",
    "with pytest.raises(IndexError) as caught:\n        [].pop()\n    assert 'empty' in str(caught.value)",
    "for n in range(3):\n        assert n < 3",
    "sorted([1])",
    "sorted([1]);",
    "sorted([1])  # done",
    "try:\n        assert 1\n    finally:\n        pass",
    "assert 1 == 1\n    return",
    "def inner():\n        return 1\n    assert inner() == 1",
    "if True:\n        assert 1 == 1",
    '"""Nothing."""',
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("end", ["\n", "", "\n\n\ndef test_other():\n    assert 1 == 1\n"])
def test_a_decoy_fails_where_the_test_passes(body: str, end: str) -> None:
    source = f"def test_it():\n    {body}{end}"
    assert passes(source)
    for seed in range(12):
        decoy = altered(source, seed=seed)
        assert decoy is not None or ";" in body
        if decoy is not None:
            assert not passes(decoy), decoy
            assert len(decoy) < len(source) + 60


METHODS = [
    "self.assertEqual(1 + 1, 2)",
    "self.assertEqual([1], list((1,)))",
    "self.assertNotEqual(1, 2)",
    "self.assertTrue(1)",
    "self.assertFalse(0)",
    "self.assertIn(1, [1])",
    "self.assertIsNone(None)",
    "self.assertIsInstance(1, int)",
    "self.assertAlmostEqual(0.1 + 0.2, 0.3)",
    "self.assertLess(1, 2)",
    "self.assertListEqual([1], [1])",
    "self.textAssertEqual('a', 'a')",
    "self.assertRaises(ValueError, int, 'x')",
    "with self.assertRaises(ValueError):\n            int('x')",
    "with self.subTest():\n            self.assertEqual(1, 1)",
]


@pytest.mark.parametrize("body", METHODS)
def test_methods(body: str) -> None:
    head = "class Base(unittest.TestCase):\n    def textAssertEqual(self, a, b):\n        assert a == b\n"
    source = f"{head}    def test_it(self):\n        {body}\n\nclass Test(Base):\n    pass\n"
    assert passes(source, "Test::test_it")
    for seed in range(12):
        decoy = altered(source, "Test::test_it", seed)
        assert decoy is not None
        assert not passes(decoy, "Test::test_it"), decoy


LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(LITERALS, st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_any_literal(value: object, seed: int) -> None:
    source = f"VALUE = {value!r}\n\n\ndef test_it():\n    assert VALUE == {value!r}\n"
    if "inf" in source:
        source = "inf = float('inf')\n" + source
    assert passes(source)
    decoy = altered(source, seed=seed)
    assert decoy is not None
    assert not passes(decoy), decoy


@given(st.text(), st.integers(0, 10))
@settings(max_examples=100, deadline=None)
def test_no_text_breaks_it(text: str, seed: int) -> None:
    decoys = Decoys(text)
    assert decoys.altered([]) == text
    assert decoys.function("test_it") is None


def test_what_may_not_be_what_it_seems_has_none() -> None:
    for source in (
        "def test_it():\n    if 1:\n        return\n    assert 0\n",
        "def test_it():\n    yield\n    assert 1\n",
    ):
        assert altered(source) is None
    for source in (
        "def test_it():\n    assert 1\n\ntest_it()\n",
        "def test_it():\n    assert 1\n\nfrom other import *\n",
        "def test_it():\n    assert 1\n\nif True:\n    from other import test_it\n",
        "def test_it():\n    assert 1\n\ndef test_it():\n    assert 2\n",
        "def broken(:\n",
    ):
        assert Decoys(source).function("test_it") is None


def test_ids_are_matched_with_functions() -> None:
    source = (
        "class A:\n    def test_it(self):\n        assert 1\n\nclass B(A):\n    pass\n\ndef test_it(x):\n    assert 1\n"
    )
    ids = ["t.py::A::test_it", "t.py::B::test_it", "t.py::test_it[a::b]", "t.py::test_it[c]", "t.py::gone", "u.py::x"]
    assert functions_of(ids, {"t.py": Decoys(source)}) == {
        ("t.py", "A.test_it"): ids[:2],
        ("t.py", "test_it"): ids[2:4],
    }


def test_line_ends_stay() -> None:
    source = "def test_it():\r\n    sorted([])\r\n"
    decoy = altered(source)
    assert decoy is not None
    assert "\n" not in decoy.replace("\r\n", "")
    assert not passes(decoy)
