"""What we add to vLLM's workers: called by name, with strings, in this process or over HTTP."""

from __future__ import annotations

import json
from typing import Any

from palaestra.agents.engines.vllm.ledger import LEDGER


class WorkerExtension:
    """Mixed into vLLM's worker class; every method's name begins as no method of a worker's does."""

    def palaestra_take(self, asked: str) -> dict[str, Any]:
        """Measurements of finished requests.

        Args:
            asked: JSON object: number of sampled tokens by key.

        Returns:
            `rows`: by key, [entropy, log share] per token, empty where they lack; `failure`: why, if something failed.
        """
        rows = {key: LEDGER.take(key, count) for key, count in json.loads(asked).items()}
        return {"rows": rows, "failure": LEDGER.failure}

    def palaestra_forget(self, key: str) -> None:
        """Forget a request that was given up."""
        LEDGER.forget(key)

    def palaestra_reload(self, folder: str) -> None:
        """Load the weights in `folder`, in place of the ones in use."""
        self.reload_weights(weights_path=folder)  # type: ignore[attr-defined]  # of vLLM's worker
