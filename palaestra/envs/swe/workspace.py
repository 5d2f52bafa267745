"""A sandbox as a task wants it when the agent begins: its files laid, its repository a commit."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from palaestra.envs.swe import patch
from palaestra.envs.swe.instance import Instance
from palaestra.errors import DataError, SandboxImageError
from palaestra.sandboxes.core import Sandbox
from palaestra.sandboxes.spec import SandboxSpec

OUTPUT = 1024 * 1024
"""Bytes kept of what a command prints, from which the lines that matter are taken."""


class Starter(Protocol):
    """What starts sandboxes: a back end, or what keeps some ready."""

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox; see `Backend.start`."""


def spec_of(instance: Instance, *, network: bool = True) -> SandboxSpec:
    """What to start for a task; without `network`, for its tests."""
    return SandboxSpec(
        image=instance.image,
        workdir=instance.workdir,
        env={**patch.AUTHOR, **instance.env},
        limits=replace(instance.limits, output=max(instance.limits.output, OUTPUT)),
        network=instance.network if network else (),
        root=instance.root,
    )


async def prepare(starter: Starter, instance: Instance, *, network: bool = True) -> tuple[Sandbox, str]:
    """A fresh sandbox with the task's files, and the commit at which the work begins.

    Args:
        starter: starts it.
        instance: the task.
        network: whether it has the network that the task allows.

    Raises:
        DataError: a folder of the task's is not there.
        SandboxError: it does not start, or the files cannot be laid there.
    """
    sandbox = await _started(starter, instance, spec_of(instance, network=network))
    try:
        for target, folder in instance.files.items():
            if not Path(folder).exists():
                raise DataError(f"{instance.name!r} wants {folder} laid at {target}, and there is nothing there")
            await sandbox.upload(Path(folder), target)
        return sandbox, await patch.begin(sandbox, instance)
    except BaseException:
        await sandbox.close()
        raise


async def _started(starter: Starter, instance: Instance, spec: SandboxSpec) -> Sandbox:
    try:
        return await starter.start(spec)
    except SandboxImageError as error:
        if not instance.build:
            raise
        raise SandboxImageError(f"{error}; build=true makes it of {instance.build}") from error
