"""What an agent means to do, apart from what it thinks before."""

from __future__ import annotations

from palaestra.envs.calls import find_call

LONGEST = 4096
"""Characters of an action that are read; a longer one makes no sense."""
TAGS = ("action", "answer")


def spoken(action: object) -> str | None:
    """The text in the action's first `<action>` or `<answer>` tag, or all of it where there is none.

    `None` where it is no text, or far too long.
    """
    if not isinstance(action, str) or len(action) > LONGEST:
        return None
    call = find_call(action, TAGS)
    return call.argument if call else action.strip()
