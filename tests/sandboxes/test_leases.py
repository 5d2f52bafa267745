"""Leases: held by a live process, free after any death, and never mistaken for another's."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.holders import Holder

from palaestra.errors import SandboxError
from palaestra.sandboxes import leases
from palaestra.sandboxes.leases import Lease, lease_of, state


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_lease_is_alive_until_it_is_closed():
    lease = Lease.open("docker")
    assert state(lease.id) == "alive"
    assert lease.held
    assert [each.id for each in leases.leases()] == [lease.id]
    lease.close()
    lease.close()
    assert state(lease.id) == "dead"
    assert not lease.held
    assert leases.leases() == []


def test_it_says_who_holds_it():
    with Lease.open("docker", seconds=60.0) as lease:
        holder = lease_of(lease.id).holder
        assert holder.pid == os.getpid()
        assert holder.purpose == "docker"
        assert sys.executable.rpartition("/")[2] in holder.command
        assert holder.expires == pytest.approx(time.time() + 60.0, abs=5.0)
        assert lease.path.stat().st_mode & 0o077 == 0


def test_looking_from_the_process_that_holds_it_does_not_free_it():
    with Lease.open() as lease:
        leases.leases()
        state(lease.id)
        seen = subprocess.run(
            [sys.executable, "-c", f"from palaestra.sandboxes.leases import state; print(state({lease.id!r}))"],
            capture_output=True,
            text=True,
        )
        assert seen.stdout.strip() == "alive", seen.stderr


def test_it_is_dead_after_a_kill():
    with Holder() as holder:
        assert state(holder.id) == "alive"
        holder.kill()
        assert state(holder.id) == "dead"
        assert lease_of(holder.id).holder.pid == holder.process.pid


def test_a_forked_child_does_not_keep_it_alive():
    with Holder("import os\nif os.fork() == 0:\n    time.sleep(60)") as holder:
        assert state(holder.id) == "alive"
        holder.kill()
        assert state(holder.id) == "dead"


def test_a_child_forked_behind_pythons_back_does_not_keep_it_alive():
    with Holder("import ctypes\nif ctypes.CDLL(None).fork() == 0:\n    time.sleep(60)") as holder:
        holder.kill()
        assert state(holder.id) == "dead"


def test_an_executed_child_does_not_keep_it_alive():
    then = "import subprocess\nsubprocess.Popen(['sleep', '60'], close_fds=False)"
    with Holder(then) as holder:
        holder.kill()
        assert state(holder.id) == "dead"


def test_a_forked_child_that_ends_leaves_it_to_its_parent():
    with Lease.open() as lease:
        pid = os.fork()
        if pid == 0:
            lease.close()
            os._exit(1 if lease.held else 0)
        assert os.waitpid(pid, 0)[1] == 0
        assert state(lease.id) == "alive"
        assert lease.path.exists()


def test_another_process_of_the_same_number_is_not_its_holder():
    """As after a child behind our back has kept the lock, and the number was given out again."""
    with Lease.open() as lease:
        said = json.loads(lease.path.read_text())
        said["started"] -= 1
        lease.path.write_text(json.dumps(said))
        assert state(lease.id) == "dead"


def test_numbers_of_other_containers_say_nothing():
    with Lease.open() as lease:
        said = json.loads(lease.path.read_text())
        said |= {"pid": 2**22 - 1, "namespace": "pid:[1]"}
        lease.path.write_text(json.dumps(said))
        assert state(lease.id) == "alive"


def test_an_expired_lease_is_void_although_its_process_lives():
    with Lease.open(seconds=-1.0) as lease:
        assert state(lease.id) == "expired"


def test_one_process_at_a_time_reaps(cache):
    script = "from palaestra.sandboxes.leases import reaping\nwith reaping() as mine: print(mine)"

    def elsewhere():
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip()

    with leases.reaping() as mine:
        assert mine, "there is not even a folder"
    Lease.open().close()
    with leases.reaping() as mine:
        assert mine
        assert elsewhere() == "False"
    assert elsewhere() == "True"


def test_the_file_of_a_dead_lease_is_forgotten_and_of_a_live_one_kept():
    with Holder() as holder:
        leases.forget(holder.id)
        assert state(holder.id) == "alive"
        holder.kill()
        leases.forget(holder.id)
        assert leases.leases() == []
        leases.forget(holder.id)


def test_leases_of_another_folder_are_not_taken_for_dead_ones(cache, monkeypatch, tmp_path):
    with Lease.open() as lease:
        monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "other"))
        assert state(lease.id) == "elsewhere"
        with Lease.open() as other:
            assert state(lease.id) == "elsewhere"
            assert other.id.split("-")[0] != lease.id.split("-")[0]


@given(st.text())
def test_any_text_is_an_id_of_elsewhere(text):
    assert state(text) == "elsewhere"


def test_a_damaged_file_is_told_by_its_lock():
    with Lease.open() as lease:
        lease.path.write_bytes(b"\xff{")
        assert leases.leases()[0].state == "alive"
        assert leases.leases()[0].holder is None
    with Holder() as holder:
        holder.kill()
        (leases.leases_folder() / f"{holder.id}.json").write_bytes(b"[1]")
        assert state(holder.id) == "dead"


def test_a_damaged_store_is_told(cache):
    Lease.open().close()
    (leases.leases_folder() / "store").write_text("?")
    with pytest.raises(SandboxError, match="store is damaged; delete it"):
        Lease.open()


def test_what_a_kill_left_unfinished_is_swept(cache):
    Lease.open().close()
    old, fresh = leases.leases_folder() / ".old.partial", leases.leases_folder() / ".fresh.partial"
    old.touch()
    fresh.touch()
    os.utime(old, (1, 1))
    leases.leases()
    assert not old.exists()
    assert fresh.exists()


def test_a_full_disk_is_told_in_a_line(monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("no file system can be mounted")
    script = (
        "from palaestra.sandboxes.leases import Lease\ntry:\n    Lease.open()\nexcept Exception as e:\n    print(e)"
    )
    full = (
        "mount -t tmpfs -o size=4k,nr_inodes=64 none $0 && mkdir -p $0/sandboxes/leases && "
        "(cat /dev/zero > $0/fill; PALAESTRA_CACHE=$0 $1 -c '" + script + "'; ls -A $0/sandboxes/leases)"
    )
    folder = Path(os.environ["PALAESTRA_CACHE"])
    folder.mkdir()
    out = subprocess.run(
        ["unshare", "-m", "sh", "-c", full, str(folder), sys.executable], capture_output=True, text=True
    )
    if "unshare" in out.stderr or "mount:" in out.stderr:
        pytest.skip("no file system can be mounted")
    assert re.fullmatch(r"cannot keep a lease in .*: No space left on device; free some space .*\n", out.stdout), out


def test_a_folder_that_cannot_be_written_is_told_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SandboxError, match="Not a directory; .*PALAESTRA_CACHE"):
        Lease.open()


def test_labels_say_whose_a_thing_is_and_until_when():
    with Lease.open() as lease:
        assert lease.labels() == {"palaestra.lease": lease.id}
        assert float(lease.labels(60.0)["palaestra.expires"]) == pytest.approx(time.time() + 60.0, abs=5.0)


def test_its_folder_goes_with_it_once_it_is_empty():
    lease = Lease.open()
    folder = lease.folder()
    assert folder == lease.folder()
    assert folder.name == lease.id
    lease.close()
    assert not folder.exists()


def test_its_folder_is_left_to_the_reaper_where_it_is_not_empty():
    lease = Lease.open()
    (lease.folder() / "file").touch()
    lease.close()
    assert lease.folder().exists()
    shutil.rmtree(lease.folder())


def test_many_processes_begin_a_store_together(cache):
    script = "from palaestra.sandboxes.leases import Lease; l = Lease.open(); print(l.id); l.close()"
    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    ids = [process.communicate()[0].strip() for process in processes]
    assert len({id.split("-")[0] for id in ids}) == 1
    assert len(set(ids)) == 6
    assert [path.name for path in leases.leases_folder().iterdir()] == ["store"]
