from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from palaestra.seeds import derive_seed


def test_seeds_are_the_same_in_every_process() -> None:
    code = "from palaestra.seeds import derive_seed; print(derive_seed(7, '3/0/1'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == derive_seed(7, "3/0/1")


@given(a=st.tuples(st.integers(0, 99), st.text(max_size=3)), b=st.tuples(st.integers(0, 99), st.text(max_size=3)))
def test_seeds_differ_exactly_where_their_parts_do(a: tuple[int, str], b: tuple[int, str]) -> None:
    assert (derive_seed(*a) == derive_seed(*b)) == (a == b)
    assert 0 <= derive_seed(*a) < 2**63
