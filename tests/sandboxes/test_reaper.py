"""The reaper on this machine's own things: a holder's death, and everything that must be left alone."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.holders import Holder

from palaestra.cli.main import main
from palaestra.errors import SandboxDaemonError
from palaestra.sandboxes import leases, reaper
from palaestra.sandboxes.leases import Lease
from palaestra.sandboxes.local_keeper import LocalKeeper
from palaestra.sandboxes.things import Thing

FOLDER = "(lease.folder() / 'one').mkdir(); (lease.folder() / 'one' / 'file').touch(); (lease.folder() / 'two').touch()"
PROCESS = """
child = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], env={**os.environ, **lease.environment("sandbox-1")})
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    return tmp_path / "cache"


def reap(*ids, **more):
    return asyncio.run(reaper.reap(ids, **more))


def survey(*ids):
    """Things of this test's own leases, and of these: others use the machine too."""
    found = asyncio.run(reaper.survey()).things
    return [thing for thing in found if thing.state != "elsewhere" or thing.lease in ids]


def runs(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_folders_go_after_their_holder_and_not_before(cache):
    with Holder(FOLDER) as holder:
        assert [(thing.state, Path(thing.name).name) for thing in survey()] == [("alive", "one"), ("alive", "two")]
        assert survey()[0].holder.pid == holder.process.pid
        assert reap().removed == []
        holder.kill()
        assert {thing.state for thing in survey()} == {"dead"}
        assert len(reap(rehearse=True).removed) == 2
        assert len(reap().removed) == 2
        assert survey() == []
        assert list((cache / "sandboxes" / "folders").iterdir()) == []


def test_processes_go_with_what_they_started():
    with Holder(PROCESS) as holder:
        until(lambda: len(survey()) == 1)
        (thing,) = survey()
        assert (thing.kind, thing.state, thing.title) == ("process", "alive", "sandbox-1")
        holder.kill()
        children = Path(f"/proc/{thing.name}/task/{thing.name}/children")
        until(lambda: children.read_text())
        family = [int(thing.name), *map(int, children.read_text().split())]
        assert len(family) == 2
        assert [each.name for each in reap().removed] == [thing.name]
        until(lambda: not any(map(runs, family)))


def test_a_process_whose_number_is_anothers_by_now_is_left_alone():
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        asyncio.run(LocalKeeper().remove(Thing(f"{bystander.pid}", "process", "local", "0" * 25)))
        assert runs(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_a_lease_is_forgotten_once_nothing_is_left_of_it(monkeypatch):
    with Holder(FOLDER) as holder:
        holder.kill()
        reap()
        assert [each.id for each in leases.leases()] == [holder.id], "an engine was not looked at"

        async def none(stack):
            return [LocalKeeper()], {}

        monkeypatch.setattr(reaper, "_keepers", none)
        reap()
        assert leases.leases() == []


def test_what_other_caches_hold_is_left_alone(monkeypatch, tmp_path, cache):
    with Holder(FOLDER) as holder:
        holder.kill()
        monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "other"))
        (tmp_path / "other" / "sandboxes").mkdir(parents=True)
        (tmp_path / "other" / "sandboxes" / "folders").symlink_to(cache / "sandboxes" / "folders")
        assert {thing.state for thing in survey(holder.id)} == {"elsewhere"}
        assert reap().removed == []
        assert len(reap(holder.id).removed) == 2, "named, it goes"


def test_a_thing_goes_at_its_own_date_whoever_holds_it():
    class Keeper:
        name = "test"

        def __init__(self):
            self.removed = []

        async def things(self):
            now = time.time()
            late, soon = now - reaper.GRACE_SECONDS - 1, now - reaper.GRACE_SECONDS + 30
            thing = Thing("late", "container", "test", lease.id, expires=late)
            return [
                thing,
                replace(thing, name="soon", expires=soon),
                replace(thing, name="elsewhere", lease="other"),
                replace(thing, name="damaged", lease="", expires=None),
            ]

        async def remove(self, thing):
            self.removed.append(thing.name)

    with Lease.open() as lease:
        keeper = Keeper()
        asyncio.run(reaper.reap_from([keeper]))
        assert sorted(keeper.removed) == ["elsewhere", "late"]


class Stubborn:
    """An engine that does not remove what is in use, and notes the order of all else."""

    name = "stubborn"

    def __init__(self, lease):
        self.lease, self.order = lease, []

    async def things(self):
        return [Thing(kind, kind, "stubborn", self.lease) for kind in ("image", "volume", "container", "network")]

    async def remove(self, thing):
        if thing.kind == "volume":
            raise SandboxDaemonError("cannot remove volume: in use")
        self.order.append(thing.kind)


def test_what_cannot_be_removed_is_told_and_stops_nothing():
    with Holder() as holder:
        holder.kill()
        keeper = Stubborn(holder.id)
        done = asyncio.run(reaper.reap_from([keeper]))
        assert keeper.order == ["container", "network", "image"]
        assert done.kept == {"volume": "cannot remove volume: in use"}
        assert sorted(thing.name for thing in done.removed) == ["container", "image", "network"]


def test_a_back_ends_first_start_reaps_once_in_the_background(monkeypatch):
    monkeypatch.setattr(reaper, "_begun", {})

    async def start():
        first, second = reaper.reap_soon(), reaper.reap_soon()
        assert second is None
        await first

    with Holder(FOLDER) as holder:
        holder.kill()
        asyncio.run(start())
        assert survey() == []


def test_reaping_in_the_background_fails_in_the_log_only(monkeypatch, caplog):
    monkeypatch.setattr(reaper, "_begun", {})

    class Absent(Stubborn):
        async def things(self):
            raise SandboxDaemonError("no engine")

    async def start(keeper):
        await reaper.reap_soon(keeper)

    asyncio.run(start(Absent("")))
    assert "cannot look for what is left over: no engine" in caplog.text
    with Holder() as holder:
        holder.kill()
        monkeypatch.setattr(reaper, "_begun", {})
        asyncio.run(start(Stubborn(holder.id)))
        assert "left over: volume: cannot remove volume: in use" in caplog.text


def test_two_reapers_do_not_get_into_each_others_way():
    script = "import asyncio; from palaestra.sandboxes.reaper import reap; print(len(asyncio.run(reap()).kept))"
    more = "for i in range(200): (lease.folder() / f'{i}' / 'x').mkdir(parents=True)"
    with Holder(more) as holder:
        holder.kill()
        both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [process.communicate()[0].strip() for process in both] == ["0", "0"]
        assert survey() == []


def test_ps_shows_who_holds_what_and_what_is_left_over(capsys):
    with Holder(FOLDER) as holder, Holder(FOLDER) as killed:
        killed.kill()
        assert main(["sandboxes", "ps"]) == 0
        shown = capsys.readouterr()
        assert f"{holder.process.pid} " in shown.out
        assert "2 left over: palaestra sandboxes reap removes them" in shown.out
        assert "docker left out" in shown.err
        assert main(["sandboxes", "ps", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        ours = [thing for thing in said["things"] if thing["lease"] in (holder.id, killed.id)]
        assert sorted(thing["state"] for thing in ours) == ["alive", "alive", "dead", "dead"]
        assert ours[0]["holder"]["command"].startswith("python")
        assert "nowhere/docker.sock" in said["unseen"]["docker"]


def test_reap_removes_and_says_so(capsys):
    with Holder(FOLDER) as holder:
        holder.kill()
        assert main(["sandboxes", "reap", "--dry-run"]) == 0
        assert "would remove 2" in capsys.readouterr().out
        assert main(["sandboxes", "reap"]) == 0
        assert "removed 2" in capsys.readouterr().out
        assert main(["sandboxes", "reap", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["removed"] == []
        assert survey() == []


def test_ps_says_when_there_is_nothing(capsys, monkeypatch):
    async def none(stack):
        return [], {}

    monkeypatch.setattr(reaper, "_keepers", none)
    assert main(["sandboxes", "ps"]) == 0
    assert capsys.readouterr().out == "no sandboxes\n"


def test_reap_fails_where_something_is_still_there(capsys, monkeypatch):
    with Holder() as holder:
        holder.kill()

        async def stubborn(stack):
            return [Stubborn(holder.id)], {}

        monkeypatch.setattr(reaper, "_keepers", stubborn)
        assert main(["sandboxes", "reap"]) == 1
        assert "still there: cannot remove volume: in use" in capsys.readouterr().out
        assert [each.id for each in leases.leases()] == [holder.id]


def test_names_that_would_move_the_cursor_are_shown_harmlessly(capsys, monkeypatch):
    async def hostile(stack):
        class Hostile(Stubborn):
            async def things(self):
                return [Thing("a\x1b[2J\nb", "volume", "docker", "[red]x", image="[bold]\x07")]

        return [Hostile("")], {}

    monkeypatch.setattr(reaper, "_keepers", hostile)
    assert main(["sandboxes", "ps"]) == 0
    shown = capsys.readouterr().out
    assert "a?[2J?b" in shown
    assert "[bold]?" in shown
    assert "\x1b" not in shown


def test_without_an_engine_it_says_how_to_name_one(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("DOCKER_HOST")
    if any(os.path.exists(path) for path in ("/run/docker.sock", "/var/run/docker.sock")):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["sandboxes", "ps"]) == 0
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "is DOCKER_HOST right?" in said
