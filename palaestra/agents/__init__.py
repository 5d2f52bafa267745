"""Policies: chat and action formats, context policies, inference engines, and the rollout driver."""
