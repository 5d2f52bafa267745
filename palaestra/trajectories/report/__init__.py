"""The report of a run: one HTML file with its curves, its entropies and its episodes, token by token."""

from palaestra.trajectories.report.page import write_report

__all__ = ["write_report"]
