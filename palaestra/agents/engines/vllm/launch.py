"""What a vLLM server of ours runs: it wears its leash from the start, while the model still loads, too."""

import runpy

from palaestra.agents.engines.vllm.leash import wear

SERVER = "vllm.entrypoints.openai.api_server"
"""What `vllm serve` calls; that command itself wants a package named vllm, which a build named otherwise lacks."""

if __name__ == "__main__":
    wear()
    # As `python -m` would: vLLM's own processes import what is `__main__` again.
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)
