"""TextWorld's games (Côté et al., 2018), on the `textworld` package: generated ones, or game files of your own.

`recipe` says which game, `generate` makes it in a process of its own, `shelf` keeps what was made, `files` looks at
game files before anything runs them, `story` plays one, `env` and `suite` are what the rest of Palaestra sees.
"""
