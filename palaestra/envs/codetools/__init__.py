"""Tools that run an agent's code in a sandbox, for any environment."""
