"""Sokoban in text, on an engine of our own: push every box on a target.

`room` holds the rules, `generate` makes rooms by playing backwards, `solver` finds plans, `env` and `suite` are what
the rest of Palaestra sees.
"""
