"""TextArena's games on the original package: `games` lists them and says which cannot be played and why, `match` plays
one, with scripted players in the other seats, whose `moves` are drawn until one is legal.
"""
