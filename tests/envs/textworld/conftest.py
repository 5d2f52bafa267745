"""Games that are generated once for all tests here."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, unless `PALAESTRA_TEXTWORLD_GAMES` names one to keep between runs."""
    with pytest.MonkeyPatch.context() as patch:
        kept = os.environ.get("PALAESTRA_TEXTWORLD_GAMES") or str(tmp_path_factory.mktemp("games"))
        patch.setenv("PALAESTRA_CACHE", kept)
        yield
