"""Palaestra inside other trainers. Each part is imported in the environment of its trainer only."""
