"""BabyAI's levels (Chevalier-Boisvert et al., 2019) as text, on the `minigrid` package.

`levels` makes the games and says which split one belongs to, `words` tells what the agent sees, `oracle` follows
BabyAI's own bot, `env` and `suite` are what the rest of Palaestra sees.
"""
