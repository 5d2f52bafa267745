"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="verifiers",
    summary="tasksets and conversation environments of the package verifiers, the user's own",
    env="verifiers/Environment-v0",
    splits={"train": None, "validation": None, "test": None},
    oracle=False,
    rewards="the taskset's weighted rewards, at the end",
    admissible=False,
    action="message",
    max_turns=20,
    extra="verifiers",
    needs="a taskset",
    licence="verifiers: MIT; tasksets have their own",
    source="https://github.com/PrimeIntellect-ai/verifiers",
    page="environments/verifiers.md",
)
