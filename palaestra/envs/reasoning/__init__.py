"""The `reasoning` suite: questions with one answer, made and judged by reasoning-gym's generators."""
