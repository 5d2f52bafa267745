"""From one machine to 1,000 GPUs and 100,000 episodes at once: what each part has to carry, and which is full first.

Two halves, one page (docs/scale.md), whose numbers are this script's:

Arithmetic. Bytes and CPU seconds of an episode's record are measured here, with the code that a run uses; what cannot
be measured here (GPUs, networks) is a named assumption with its source. GPUs are divided between engines and learner so
that both finish as many episodes.

Simulation. The dispatcher of palaestra.distributed, as it is, shares out jobs among invented workers on a clock that
jumps; how long environments take is drawn from `traces/latencies.json`, recorded from real ones by
record_latencies.py. Nodes die. It tells which part of the places is in use where all wait for the slowest episode
(iterations one after the other), where a job is a group, and where it is one episode.

    python benchmarks/scale_simulation.py [--write]       # --write: docs/results/scale.{json,txt,svg}
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _harness import conclude

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support import virtual_time  # noqa: E402

from palaestra.distributed.dispatch import Dispatcher, WorkerLost  # noqa: E402
from palaestra.training.rows import build_rows  # noqa: E402
from palaestra.trajectories.record import Node, StepRecord, Trajectory  # noqa: E402
from palaestra.trajectories.store import TrajectoryWriter, decoded, encoded  # noqa: E402

BAR = 1.3
GROUP = 8
"""Episodes of a group."""
PER_GPU = 100
"""Episodes at once for each GPU of the cluster: 100,000 on 1,000."""
VOCABULARY = 151_936
RESTART = 60.0
"""Seconds until a worker that died is there again."""
KILLS = 8
SCALES = (8, 16, 32, 64, 128, 256, 512, 1000)
"""GPUs."""


@dataclass(frozen=True)
class Assumed:
    """What was not measured on this machine."""

    calls_per_second: float = 2500.0
    """Of one Ray driver; lower end of 2,500 to 3,400, noted once on 2 cores (Ray 2.60); no script repeats it."""
    store_bytes_per_second: float = 100e6 / 0.33
    """One hand-over through Ray's object store; 100 MB took 0.33 s on the same 2 cores, noted likewise."""
    network_bytes_per_second: float = 50e9
    """Of a node: 400 Gbit/s."""
    gpus_per_node: int = 8
    flops: float = 989e12
    """Of an H200, bf16, dense, by its data sheet."""
    learner_share: float = 0.4
    """Of that in training; published RL learners reach 0.11 to 0.37."""
    prefill_share: float = 0.4
    """Of that while prompts are read."""
    failures_per_gpu_day: float = 419 / 54 / 16384
    """Unexpected interruptions in the training of Llama 3 405B (arXiv 2407.21783, section 3.3.4)."""


ASSUMED = Assumed()


@dataclass(frozen=True)
class Workload:
    """What is played."""

    name: str
    trace: str
    """Suite in `latencies.json`."""
    parameters: float
    """Of the model."""
    decode: float
    """Tokens a second that one H200 samples from it, all requests together (lower end of targets by arithmetic)."""
    turns: int
    sampled: int
    """Tokens a turn."""
    observed: int
    """Tokens that the environment writes a turn."""
    slowest: float = 100.0
    """Tokens a second of a single request, at most."""

    @property
    def tokens(self) -> int:
        """Of an episode, read by the learner."""
        return self.turns * (self.sampled + self.observed)


WORKLOADS = (
    Workload("household", "alfworld", 8e9, 18_000, turns=12, sampled=100, observed=60),
    Workload("software", "swe", 8e9, 18_000, turns=30, sampled=300, observed=700),
)


# ------------------------------------------------------------------------------------------------ what is measured here


def invented(workload: Workload, number: int) -> Trajectory:
    """An episode of the workload's size, with tokens by chance."""
    draw = random.Random(number)
    nodes, steps = [], []
    for turn in range(workload.turns):
        nodes.append(Node(ids=[draw.randrange(VOCABULARY) for _ in range(workload.observed)]))
        ids = [draw.randrange(VOCABULARY) for _ in range(workload.sampled)]
        entropies = [draw.random() for _ in ids]
        nodes.append(
            Node(ids=ids, role="assistant", sampled=True, logprobs=[-e for e in entropies], entropies=entropies)
        )
        text = "".join(draw.choices("abcdefgh ", k=4 * workload.observed))
        steps.append(
            StepRecord(observation=text, action=text[: 4 * workload.sampled], reward=0.0, completion=2 * turn + 1)
        )
    return Trajectory(
        id=f"0/{number // GROUP}/{number % GROUP}", env="x/X-v0", task="t", group=f"0/{number // GROUP}", steps=steps,
        nodes=nodes, agent="x", start_hash="x",
    )  # fmt: skip


def cpu_seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """The least CPU time of some rounds: other work on the machine only adds."""
    best = math.inf
    for _ in range(rounds):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


@dataclass(frozen=True)
class Record:
    """What one episode's record costs the learner's process, in CPU seconds of one core."""

    bytes: float
    decode: float
    store: float
    """Compressing it into the run directory."""
    rows: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.decode + self.store + self.rows


def record_of(workload: Workload) -> Record:
    """Measured on a few groups."""
    episodes = [invented(workload, number) for number in range(2 * GROUP)]
    messages = [encoded(each) for each in episodes]
    n = len(episodes)

    def store() -> None:
        with TemporaryDirectory(dir="/dev/shm") as folder, TrajectoryWriter(Path(folder) / "x.ptj") as writer:
            for each in episodes:
                writer.append(each)

    return Record(
        bytes=sum(map(len, messages)) / n,
        decode=cpu_seconds(lambda: [decoded(message) for message in messages]) / n,
        store=cpu_seconds(store) / n,
        rows=cpu_seconds(lambda: build_rows(episodes)) / n,
    )


# --------------------------------------------------------------------------------------------------------- arithmetic


@dataclass(frozen=True)
class Load:
    """A cluster at work; shares above 1 cannot be carried."""

    gpus: int
    episodes: int
    """At once."""
    engines: float
    """GPUs that sample."""
    learners: float
    rate: float
    """Episodes a second that GPUs can finish."""
    seconds: float
    """That an episode may take for all places to be needed."""
    turn_seconds: float
    """The same, for one turn."""
    trajectory_bytes: float
    """A second, into the learner's node."""
    messages_by_group: float
    """A second: a call and its answer count once."""
    messages_by_episode: float
    core: float
    """Of the one Python process that takes trajectories in: decode, store, rows."""
    calls: float
    """Share of what one driver can call, a call an episode."""
    network: float
    """Share of the link of the learner's node."""
    environment_cores: float
    weights: float
    """Seconds to hand all weights to every node through the object store, where whoever has them hands them on, over
    seconds between updates; one learns from a quarter as many episodes as there are at once."""
    adapter: float
    """The same for a LoRA adapter of 0.5 % of the parameters."""


def load_of(workload: Workload, record: Record, environment: float, gpus: int) -> Load:
    """Args:
    workload: what is played.
    record: what it costs to take in.
    environment: mean seconds of all steps of an episode.
    gpus: of the cluster.
    """
    work = 2 * workload.parameters * workload.tokens
    engine = workload.turns * workload.sampled / workload.decode + work / (ASSUMED.flops * ASSUMED.prefill_share)
    learner = 3 * work / (ASSUMED.flops * ASSUMED.learner_share)
    rate, episodes = gpus / (engine + learner), PER_GPU * gpus
    nodes = max(1, gpus // ASSUMED.gpus_per_node)
    hops = math.ceil(math.log2(nodes)) + 1
    between = episodes / 4 / rate
    hand_over = hops * 2 * workload.parameters / ASSUMED.store_bytes_per_second
    return Load(
        gpus=gpus,
        episodes=episodes,
        engines=rate * engine,
        learners=rate * learner,
        rate=rate,
        seconds=episodes / rate,
        turn_seconds=episodes / rate / workload.turns,
        trajectory_bytes=rate * record.bytes,
        messages_by_group=rate / GROUP,
        messages_by_episode=rate,
        core=rate * record.seconds,
        calls=rate / ASSUMED.calls_per_second,
        network=rate * record.bytes / ASSUMED.network_bytes_per_second,
        environment_cores=rate * environment,
        weights=hand_over / between,
        adapter=0.005 * hand_over / between,
    )


SHARES = {
    "core": "learner's process (one core)",
    "calls": "Ray calls of one driver",
    "network": "link of the learner's node",
    "weights": "all weights by object store",
    "adapter": "LoRA adapter by object store",
}


def first_full(loads: Sequence[Load], share: str) -> float | None:
    """GPUs at which a share reaches 1, between the scales; `None` beyond the last."""
    for before, after in itertools.pairwise(loads):
        a, b = getattr(before, share), getattr(after, share)
        if a >= 1:
            return 0.0
        if b >= 1:
            return before.gpus + (after.gpus - before.gpus) * (1 - a) / (b - a)
    return None


# --------------------------------------------------------------------------------------------------------- simulation


@dataclass
class Played:
    """What engines tell."""

    spans: list[tuple[float, Sequence[float]]] = field(default_factory=list)
    """When a job began that was done, and the seconds of its episodes."""
    begun: set[int] = field(default_factory=set)
    """Which jobs were given out at least once, by identity."""
    began: float = 0.0
    """When the last of them was, for the first time."""

    def used(self, end: float) -> float:
        """Seconds of episodes up to `end`."""
        return sum(max(0.0, min(seconds, end - start)) for start, job in self.spans for seconds in job)


@dataclass
class Engine:
    """An invented worker: a GPU with its environments, which dies now and then."""

    places: int
    played: Played
    deaths: list[float]
    """When it dies, latest first."""
    died: int = 0

    async def ready(self) -> None:
        await asyncio.sleep(RESTART if self.died else 0.0)

    async def do(self, job: Sequence[float]) -> int:
        now, seconds = asyncio.get_running_loop().time(), max(job)
        if id(job) not in self.played.begun:
            self.played.begun.add(id(job))
            self.played.began = now
        while self.deaths and self.deaths[-1] < now:
            self.deaths.pop()
        death = self.deaths[-1] if self.deaths else math.inf
        await asyncio.sleep(min(seconds, death - now))
        if death < now + seconds:
            self.died += 1
            raise WorkerLost("its node died")
        self.played.spans.append((now, job))
        return len(job)


@dataclass(frozen=True)
class Simulated:
    """What came of a schedule."""

    used: float
    """Part of the places' time in which an episode was played that counted; where nobody waits for all, up to the
    moment at which no job was left that nobody had begun."""
    seconds: float
    """On the clock of the simulation."""
    episodes: int
    lost: int
    """Workers that died."""
    overhead: float
    """CPU seconds a job: the dispatcher's, as it is, and the invented engine's."""


@dataclass
class Simulation:
    """One workload on one cluster."""

    workload: Workload
    trace: list[dict[str, Any]]
    engines: int
    places: int
    """Of each engine."""
    waves: int
    """Times as many episodes as there are places."""

    def __post_init__(self) -> None:
        self.random = random.Random(0)
        self.steps = [seconds for episode in self.trace for seconds in episode["steps"]]
        self.lengths = [len(episode["steps"]) for episode in self.trace]
        cycle = self.workload.sampled * self.places / self.workload.decode
        mean = sum(self.steps) / len(self.steps)
        self.generate = max(self.workload.sampled / self.workload.slowest, cycle - mean)
        """Seconds of a completion: the engine's tokens are shared among those that are not in their environment."""
        count = self.waves * self.engines * self.places // GROUP
        self.groups = [[self.episode() for _ in range(GROUP)] for _ in range(count)]

    def episode(self) -> float:
        """Seconds of one. Its number of turns varies as lengths do in the trace, by half where those are all alike."""
        model = self.random.choice(self.trace)
        share = len(model["steps"]) * len(self.lengths) / sum(self.lengths)
        if min(self.lengths) == max(self.lengths):
            share = self.random.uniform(0.5, 1.5)
        turns = max(1, round(self.workload.turns * share))
        around = sum(model.get(part, 0.0) for part in ("start", "reset", "verify"))
        return around + turns * self.generate + sum(self.random.choices(self.steps, k=turns))

    def run(self, *, size: int, barrier: bool = False, kills_per_hour: float = 0.0) -> Simulated:
        """Args:
        size: episodes of a job.
        barrier: play as many as there are places, wait for all of them, and begin again.
        kills_per_hour: of each engine.
        """
        jobs = [tuple(group[i : i + size]) for group in self.groups for i in range(0, GROUP, size)]
        everything, played = self.engines * self.places, Played()
        crew = [Engine(self.places, played, self._deaths(kills_per_hour)) for _ in range(self.engines)]
        dispatcher = Dispatcher[tuple[float, ...], int](crew, deaths=10**6)
        began = time.process_time()
        ended = virtual_time.run(_done(dispatcher, jobs, everything // size if barrier else len(jobs)))
        spent = time.process_time() - began
        end = ended if barrier else played.began
        used = played.used(end) / (everything * end)
        return Simulated(used, ended, len(self.groups) * GROUP, dispatcher.lost, spent / len(jobs))

    def _deaths(self, kills_per_hour: float) -> list[float]:
        deaths: list[float] = []
        while kills_per_hour and sum(deaths[-1:]) < 1e5:
            deaths.append(sum(deaths[-1:]) + self.random.expovariate(kills_per_hour / 3600))
        return deaths[::-1]


async def _done(
    dispatcher: Dispatcher[tuple[float, ...], int], jobs: Sequence[tuple[float, ...]], together: int
) -> float:
    """Do all jobs, `together` at a time; when that was."""
    done = 0
    for start in range(0, len(jobs), together):
        done += sum(await asyncio.gather(*map(dispatcher.do, jobs[start : start + together])))
    assert done == sum(map(len, jobs)), "none lost, none twice"
    ended = asyncio.get_running_loop().time()
    await dispatcher.close()
    return ended


def schedules(workload: Workload, trace: list[dict[str, Any]], load: Load, waves: int) -> dict[str, Simulated]:
    """The three of them on the same cluster, and the last where GPUs die far more often than they do."""
    engines = max(1, round(load.engines))
    places = load.episodes // engines // GROUP * GROUP
    simulation = Simulation(workload, trace, engines, places, waves)
    return {
        "one iteration after the other": simulation.run(size=GROUP, barrier=True),
        "a job is a group": simulation.run(size=GROUP),
        "a job is an episode": simulation.run(size=1),
        f"the same, {KILLS} GPUs die every minute": simulation.run(size=1, kills_per_hour=60 * KILLS / engines),
    }


# -------------------------------------------------------------------------------------------------------------- output


def drawn(loads: dict[str, list[Load]], path: Path) -> None:
    """Shares over GPUs, one panel a workload."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "palaestra", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(loads), figsize=(10.5, 4.4), sharey=True, layout="constrained")
    for panel, (name, series) in zip(panels, loads.items(), strict=True):
        for share, label in SHARES.items():
            panel.plot(
                [each.gpus for each in series], [getattr(each, share) for each in series], "o-", ms=3, label=label
            )
        panel.axhline(1, color="black", lw=1)
        panel.set(xscale="log", yscale="log", title=name, xlabel="GPUs (100 episodes at once each)")
        panel.set_xticks([8, 32, 128, 512, 1000], ["8", "32", "128", "512", "1,000"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("share of what it can carry")
    panels[0].text(8, 1.15, "full", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def pages(results: dict[str, Any]) -> str:
    """The tables of docs/scale.md."""
    text = []
    for name, each in results["workloads"].items():
        record, last, simulated = each["record"], each["loads"][-1], each["simulated"]
        text += [
            f"### {name.capitalize()}",
            "",
            f"| At {last['gpus']:,} GPUs and {last['episodes']:,} episodes at once | |",
            "|---|---|",
            f"| GPUs that sample / learn | {last['engines']:.0f} / {last['learners']:.0f} |",
            f"| Episodes a second | {last['rate']:,.0f} |",
            f"| Seconds that an episode, one turn, may take | {last['seconds']:,.1f}, {last['turn_seconds']:.2f} |",
            f"| An episode's record | {record['bytes'] / 1e3:,.1f} kB |",
            f"| Its cost to the learner's process: decode, store, rows | {1e3 * record['decode']:.2f}, "
            f"{1e3 * record['store']:.2f}, {1e3 * record['rows']:.2f} ms of a core |",
            f"| Trajectories into the learner's node | {last['trajectory_bytes'] / 1e6:,.0f} MB/s |",
            f"| Messages a second, a call a group / an episode | {last['messages_by_group']:,.0f} / "
            f"{last['messages_by_episode']:,.0f} |",
            f"| Cores for environments, if a step were all computing | {last['environment_cores']:,.0f} |",
            "",
            "| Part | Share at this size | Full at |",
            "|---|---:|---:|",
            *(f"| {label} | {last[share]:,.2g} | {_gpus(each['full'][share])} |" for share, label in SHARES.items()),
            "",
            f"| Schedule, simulated on {results['gpus']:,} GPUs | Places in use | Workers lost | CPU a job |",
            "|---|---:|---:|---:|",
            *(
                f"| {schedule} | {100 * run['used']:.0f} % | {run['lost']} | {1e6 * run['overhead']:.0f} µs |"
                for schedule, run in simulated.items()
            ),
            "",
        ]
    return "\n".join(text)


def _gpus(count: float | None) -> str:
    if count is None:
        return f"not up to {SCALES[-1]:,} GPUs"
    return f"{count:,.0f} GPUs" if count else f"less than {SCALES[0]} GPUs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/results/scale.json, .txt and .svg")
    parser.add_argument("--gpus", type=int, default=SCALES[-1], help="of the simulation (default: 1000)")
    parser.add_argument("--waves", type=int, default=2, help="episodes over places in the simulation (default: 2)")
    arguments = parser.parse_args()
    traces = json.loads((Path(__file__).parent / "traces" / "latencies.json").read_text())["suites"]
    workloads, loads, ratios = {}, {}, []
    for workload in WORKLOADS:
        trace = traces[workload.trace]
        record = record_of(workload)
        steps = [seconds for episode in trace for seconds in episode["steps"]]
        environment = workload.turns * sum(steps) / len(steps)
        loads[workload.name] = series = [load_of(workload, record, environment, gpus) for gpus in SCALES]
        simulated = schedules(workload, trace, load_of(workload, record, environment, arguments.gpus), arguments.waves)
        ratios.append(simulated["a job is an episode"].used / simulated["one iteration after the other"].used)
        workloads[workload.name] = {
            "workload": asdict(workload),
            "record": asdict(record),
            "loads": [asdict(each) for each in series],
            "full": {share: first_full(series, share) for share in SHARES},
            "simulated": {name: asdict(each) for name, each in simulated.items()},
        }
    results = {"gpus": arguments.gpus, "assumed": asdict(ASSUMED), "workloads": workloads}
    if arguments.write:
        folder = ROOT / "docs" / "results"
        (folder / "scale.json").write_text(json.dumps(results, indent=1) + "\n")
        (folder / "scale.txt").write_text(pages(results))
        drawn(loads, folder / "scale.svg")
    used = {name: {s: run["used"] for s, run in each["simulated"].items()} for name, each in workloads.items()}
    passed = conclude(
        "scale_simulation", min(ratios), BAR, gpus=arguments.gpus, baseline="one iteration after the other", used=used
    )
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
