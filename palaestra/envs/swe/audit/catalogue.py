"""All attacks."""

from __future__ import annotations

from palaestra.envs.swe.audit import on_machine, on_process, on_python, on_tests
from palaestra.envs.swe.audit.attack import Attack

ATTACKS: tuple[Attack, ...] = (*on_tests.ATTACKS, *on_python.ATTACKS, *on_process.ATTACKS, *on_machine.ATTACKS)
"""Each must score nothing on a task that it does not solve."""
