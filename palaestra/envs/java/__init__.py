"""Packages that run on Java: `machine` starts and ends their virtual machines, `realm` has classes loaded once more."""
