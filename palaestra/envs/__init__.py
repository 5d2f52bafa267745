"""Environments: the contract, registry, tasks, wrappers, checker, and the built-in suites."""
