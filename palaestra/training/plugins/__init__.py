"""The plug-ins that come with Palaestra, one file each."""

from palaestra.training.plugin import PLUGINS, register_plugin
from palaestra.training.plugins import (
    aepo,
    branching,
    empg,
    entropy_topk,
    epo,
    gigpo,
    mismatch,
    overlong,
    ppo,
    steer,
    uniform_groups,
    widest_groups,
)

for _module in (
    epo,
    empg,
    aepo,
    branching,
    gigpo,
    mismatch,
    overlong,
    ppo,
    uniform_groups,
    widest_groups,
    entropy_topk,
    steer,
):
    register_plugin(_module.PLUGIN)

__all__ = ["PLUGINS"]
