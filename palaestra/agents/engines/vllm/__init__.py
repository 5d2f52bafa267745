"""vLLM as the rollout engine: in this process or behind HTTP, with exact entropies and weights of known versions.

`engine` keeps the contract over a `transport`: `local` (`AsyncLLM` in this process) or `served` (`vllm serve`, ours or
somebody's). `rule`, `measure`, `ledger`, `watching`, `processor_v1`, `processor_v2` and `worker` run inside vLLM's
workers: they mask what a request forbids and note the entropy of what it samples from.
"""
