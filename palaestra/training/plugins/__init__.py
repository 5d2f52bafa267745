"""The plug-ins that come with Palaestra, one file each."""

from palaestra.training.plugin import PLUGINS, register_plugin
from palaestra.training.plugins import (
    aepo,
    empg,
    epo,
    gigpo,
    mismatch,
    overlong,
    uniform_groups,
    widest_groups,
)

for _module in (
    epo,
    empg,
    aepo,
    gigpo,
    mismatch,
    overlong,
    uniform_groups,
    widest_groups,
):
    register_plugin(_module.PLUGIN)

__all__ = ["PLUGINS"]
