import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.agents.constraint import Node, TokenTrie

STOP = 0
completions = st.lists(
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(lambda ids: [*ids, STOP]), min_size=1, max_size=20
)


def walk(trie: TokenTrie, node: Node, path: tuple[int, ...] = ()) -> set[tuple[int, ...]]:
    choices = trie.allowed(node)
    if not choices:
        return {path}
    return {full for token in choices for full in walk(trie, trie.child(node, token), (*path, token))}


@given(completions)
def test_the_paths_are_exactly_the_completions(sequences: list[list[int]]) -> None:
    trie = TokenTrie(sequences)
    assert walk(trie, trie.root) == {tuple(s) for s in sequences}


def test_allowed_is_sorted_and_child_moves_on() -> None:
    trie = TokenTrie([[5, 9, 2], [5, 7, 2], [4, 2], [4, 2]])
    assert trie.allowed(trie.root) == [4, 5]
    assert trie.allowed(trie.child(trie.root, 5)) == [7, 9]
    with pytest.raises(KeyError):
        trie.child(trie.root, 6)


@pytest.mark.parametrize("sequences", [[], [[]], [[5], [5, 2]], [[5, 2], [5]]])
def test_what_cannot_be_walked_is_refused(sequences: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="completion"):
        TokenTrie(sequences)


def test_building_one_for_a_turn_is_cheap() -> None:
    sequences = [[k % 5, 10 + k, 20 + k % 3, 2] for k in range(40)]
    seconds = []
    for _ in range(20):
        begin = time.process_time()
        for _ in range(10):
            TokenTrie(sequences)
        seconds.append((time.process_time() - begin) / 10)
    assert min(seconds) < 100e-6
