"""An environment of several turns: a number is guessed, and hints are given."""

import itertools

import verifiers.v1 as vf


class GuessData(vf.TaskData):
    number: int


class Guess(vf.Task[GuessData]):
    @vf.stop
    async def gave_up(self, trace: vf.Trace) -> bool:
        return trace.last_reply == "I give up"


class GuessConfig(vf.TasksetConfig):
    split: str = "train"


class Guesses(vf.Taskset[Guess, GuessConfig]):
    INFINITE = True

    def load(self):
        if self.config.split not in ("train", "test"):
            raise ValueError(f"there is no split {self.config.split!r}")
        offset = 0 if self.config.split == "train" else 1
        for n in itertools.count():
            prompt = "Guess my number."
            yield Guess(GuessData(name="guess", prompt=prompt, number=(2 * n + offset) % 50), self.config.task)


class GuessEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig(max_turns=8)


class GuessEnv(vf.Env[GuessEnvConfig]):
    async def run(self, task, agents):
        tries, right = 0, False
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            while not segment.terminated:
                tries += 1
                guess = int(segment.last_reply) if segment.last_reply.isdigit() else -1
                if right := guess == task.data.number:
                    break
                hint = "higher" if guess < task.data.number else "lower"
                segment = await interaction.turn([{"role": "user", "content": hint}])
        interaction.trace.record_reward("guessed", float(right) / max(tries, 1))

    async def finalize(self, task, episode):
        episode.traces[0].record_metric("turns", episode.traces[0].num_turns)


__all__ = ["GuessEnv", "Guesses"]
