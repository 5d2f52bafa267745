"""Sandboxes on another machine: a server that holds them on a local back end, and the back end that asks it."""
