"""The plug-ins that come with Palaestra, one file each."""

from palaestra.training.plugin import PLUGINS, register_plugin
from palaestra.training.plugins import (
    aepo,
    branching,
    dynamic_sampling,
    empg,
    entropy_topk,
    epo,
    gigpo,
    kdrl,
    knapsack,
    lp_reg,
    mismatch,
    opd,
    overlong,
    ppo,
    siren,
    spo_tracker,
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
    opd,
    kdrl,
    lp_reg,
    siren,
    dynamic_sampling,
    knapsack,
    spo_tracker,
):
    register_plugin(_module.PLUGIN)

__all__ = ["PLUGINS"]
