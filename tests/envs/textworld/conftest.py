"""Games that are generated once for all tests here."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def games(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache of the tests' own, unless `PALAESTRA_TEXTWORLD_GAMES` names one to keep between runs."""
    return os.environ.get("PALAESTRA_TEXTWORLD_GAMES") or str(tmp_path_factory.mktemp("games"))


@pytest.fixture(scope="module", autouse=True)
def shelf(games: str) -> Iterator[None]:
    """That cache, for the tests of a file: those of other folders have theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALAESTRA_CACHE", games)
        yield
