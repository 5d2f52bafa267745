"""Rollouts that go on while the learner learns: how far ahead they may be, who plays them, and what survives a kill."""
