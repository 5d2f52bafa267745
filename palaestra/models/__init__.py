"""Models that ship with the package; `palaestra.agents.models` loads them."""
