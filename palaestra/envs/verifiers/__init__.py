"""Tasksets and environments of the package `verifiers`, played through our contract."""
