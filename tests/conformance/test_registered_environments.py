"""Every registered environment keeps the contract, where it can be made here."""

import pytest

from palaestra.envs.checks.supervisor import supervised, unbuilt
from palaestra.envs.deadline import Limits
from palaestra.envs.registry import registered_ids, spec


@pytest.mark.timeout(900)
@pytest.mark.parametrize("id", registered_ids())
def test_it_keeps_the_contract(id: str) -> None:
    if unbuilt(spec(id)):
        pytest.skip("its interpreter is not built")
    found = supervised(spec(id), episodes=2, max_steps=15, limits=Limits(call=120, check=600))
    if found.missing:
        pytest.skip(f"needs {found.missing}")
    assert found.ok, str(found)
    assert found.determinism == "exact" or spec(id).nondeterministic
