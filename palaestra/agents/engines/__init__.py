"""Inference engines: the contract and its implementations."""
