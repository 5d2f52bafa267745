"""ALFWorld's household tasks on an engine of our own: `game` (data), `world` (rules), `generate`, `oracle`, `env`, `suite`."""
