"""Registers the environments under test, for a server that imports this module."""

from support import isolated_envs

from palaestra.envs.registry import register

for maker in (isolated_envs.Ledger, isolated_envs.Able, isolated_envs.GlobalDice, isolated_envs.Bad):
    register(f"test/{maker.__name__}-v0", maker, override=True)
register("test/Limited-v0", isolated_envs.Able, kwargs={"length": 3}, max_episode_steps=2, override=True)
register("test/Limited-v1", isolated_envs.Able, kwargs={"length": 3}, override=True)
register("test/Elsewhere-v0", "nowhere:Nothing", placement="remote", override=True)
