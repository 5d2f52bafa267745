"""How good is an agent: suites played and summarised, with intervals."""
