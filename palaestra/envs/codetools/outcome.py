"""What came of a call."""

from __future__ import annotations

from typing import Any

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """Of one call of a code tool."""

    name: str
    """Of the tool."""
    text: str
    """For the agent: what the code printed, or why it was stopped."""
    ok: bool
    """Whether it came to its end without an error."""
    stopped: str = ""
    """Why it was stopped, in a few words; empty where it ended by itself. What it had defined is gone then."""

    @property
    def tool(self) -> dict[str, Any]:
        """For `info["tool"]`."""
        return {"name": self.name, "ok": self.ok, **({"stopped": self.stopped} if self.stopped else {})}

    @property
    def result(self) -> str:
        """As an observation: between `<result>` tags."""
        return f"<result>\n{self.text.strip() or '(nothing printed)'}\n</result>"
