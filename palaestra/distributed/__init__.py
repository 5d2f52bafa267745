"""Runs on many machines: Ray places what plays and what learns, and the loop stays the one of a single machine.

recipe → launcher → player ─ dispatch ─→ workers (environments, agents and their engine) on other nodes
                      ↑                      │
                   learner ←─ trajectories ──┘      weights through Ray's object store, once per version
"""
