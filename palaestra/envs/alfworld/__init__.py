"""ALFWorld's household tasks on an engine of our own.

`game` is the data, `world` the rules, `generate` and `alfred` make games, `oracle` solves them, `env` and `suite` are
what the rest of Palaestra sees.
"""
