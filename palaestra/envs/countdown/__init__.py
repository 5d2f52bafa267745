"""Countdown: reach a target from given numbers, in one expression or by one operation a turn.

`expression` reads what was answered, `puzzle` holds the rules, `generate` makes puzzles, `solver` solves them, `env`
and `suite` are what the rest of Palaestra sees.
"""
