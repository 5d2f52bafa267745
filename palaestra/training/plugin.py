"""What a plug-in is to recipes: a name, settings, and what it builds from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from palaestra.config import Config, Recipe, convert
from palaestra.errors import ConfigError
from palaestra.training.seams import Parts


class NoSettings(Config, frozen=True, kw_only=True):
    """For plug-ins without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One plug-in. `register_plugin` makes it known as an entry of `algorithm.plugins`."""

    name: str
    """As recipes name it."""
    summary: str
    """What it attacks, in one line."""
    source: str
    """Authors, year and arXiv id."""
    build: Callable[[Any, Recipe], Parts]
    """From its settings and the whole recipe, with the algorithm's own defaults in place.

    Raises:
        ConfigError: it cannot work with the rest of the recipe.
    """
    settings: type[msgspec.Struct] = NoSettings
    """What `algorithm.settings.NAME` may hold."""
    neutral: Mapping[str, Any] | None = field(default_factory=dict)
    """Settings with which it changes nothing; `None` where it has no such settings."""
    groups: bool = False
    """Compares the episodes of a group, so that a group of one says nothing."""


PLUGINS: dict[str, Plugin] = {}
"""All known ones by name; those of Palaestra once `palaestra.training.plugins` is imported."""


def register_plugin(plugin: Plugin) -> Plugin:
    """Make a plug-in available to recipes; a module that `--import` names may do so.

    Raises:
        ConfigError: another one has its name, or its neutral settings are not its settings.
    """
    if PLUGINS.get(plugin.name, plugin) is not plugin:
        raise ConfigError(f"there is a plug-in {plugin.name!r} already; give yours another name")
    convert(dict(plugin.neutral or {}), plugin.settings, path=f"algorithm.settings.{plugin.name}")
    PLUGINS[plugin.name] = plugin
    return plugin
