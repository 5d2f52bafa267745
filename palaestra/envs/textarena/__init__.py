"""TextArena's games on the original package: `games` lists them and says which cannot be played and why, `moves` draws
moves for the seats that the agent does not play, `chance` keeps the package's draws away from everybody else's.
"""
