"""Packages that adapters are written for: where another version has other names and shapes, a person is told."""

from __future__ import annotations

from importlib import metadata
from typing import NamedTuple

from palaestra.errors import EnvError


class Supported(NamedTuple):
    """A package, and the version that its adapter is written for."""

    distribution: str
    """As pip names it."""
    version: str

    @property
    def found(self) -> str:
        """The version that is installed here; `unknown` where nothing says."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return "unknown"

    @property
    def is_found(self) -> bool:
        """Whether the supported version is the one that is installed."""
        return self.found == self.version

    def misfit(self, what: object) -> EnvError:
        """The error to raise where the package is not as the adapter expects."""
        text = f"{type(what).__name__}: {what}" if isinstance(what, BaseException) else what
        return EnvError(
            f"{self.distribution} {self.found} is not as expected ({str(text)[:200]}); "
            f"supported is {self.version}: pip install '{self.distribution}=={self.version}'"
        )
