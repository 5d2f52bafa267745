"""The record between the two halves: graph, storage and report. Nothing here imports torch."""
