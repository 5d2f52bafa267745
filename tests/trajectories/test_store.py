"""The trajectory file: round trips, kills at any byte, hostile and damaged files, full disks."""

import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.errors import DataError, PalaestraError
from palaestra.trajectories import store
from palaestra.trajectories.record import Node, StepRecord, Trajectory
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories

MAGIC = b"palaestra-trajectories 1\n"


def make(index: int, text: str = "go to cabinet 3") -> Trajectory:
    return Trajectory(
        id=f"0/{index}/0",
        env="alfworld/Household-v0",
        task=f"small:train/{index}",
        success=index % 2 == 0,
        nodes=[
            Node(ids=[1, 2, index]),
            Node(ids=[7], sampled=True, logprobs=[-0.5], entropies=[0.25], allowed=[[7, 9]]),
        ],
        steps=[StepRecord(observation=text, action="look", reward=0.0, completion=1)],
        meta={"advantage": 0.5},
    )


def write(path: Path, *trajectories: Trajectory) -> list[int]:
    """Offsets after each trajectory."""
    with TrajectoryWriter(path) as writer:
        offsets = []
        for trajectory in trajectories:
            writer.append(trajectory)
            offsets.append(writer.offset)
    return offsets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trajectories" / "train.ptj"


def test_what_is_written_is_read(path: Path) -> None:
    records = [make(i) for i in range(5)]
    write(path, *records[:2])
    write(path, *records[2:])
    assert list(read_trajectories(path, strict=True)) == records


def test_appends_are_readable_at_once(path: Path) -> None:
    with TrajectoryWriter(path) as writer:
        assert (list(read_trajectories(path)), len(writer)) == ([], 0)
        writer.append(make(0))
        assert writer.offset == path.stat().st_size
        assert list(read_trajectories(path, strict=True)) == [make(0)]


def test_numpy_values_in_meta_are_stored_as_plain_ones(path: Path) -> None:
    record = make(0)
    record.meta = {"advantage": np.float32(0.5), "step_credit": np.array([0.25, 0.75])}
    write(path, record)
    assert next(read_trajectories(path)).meta == {"advantage": 0.5, "step_credit": [0.25, 0.75]}


def test_an_object_in_meta_is_refused_and_the_file_stays_sound(path: Path) -> None:
    record = make(1)
    record.meta = {"x": object()}
    with TrajectoryWriter(path) as writer:
        writer.append(make(0))
        with pytest.raises(DataError, match="JSON-shaped"):
            writer.append(record)
    assert list(read_trajectories(path, strict=True)) == [make(0)]


def test_truncate_to_goes_back_to_an_earlier_offset(path: Path) -> None:
    offsets = write(path, make(0), make(1), make(2))
    with TrajectoryWriter(path) as writer:
        writer.truncate_to(offsets[0])
        writer.append(make(9))
    assert list(read_trajectories(path, strict=True)) == [make(0), make(9)]


@pytest.mark.parametrize("shift", [1, 10**6])
def test_truncate_to_refuses_what_is_no_boundary(path: Path, shift: int) -> None:
    offset = write(path, make(0))[0]
    with TrajectoryWriter(path) as writer, pytest.raises(DataError, match="no trajectory ends at byte"):
        writer.truncate_to(offset + shift)


def test_a_cut_at_every_byte_leaves_a_prefix_and_appending_works(path: Path) -> None:
    offsets = write(path, make(0), make(1))
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = [make(i) for i, end in enumerate(offsets) if end <= cut]
        assert list(read_trajectories(path)) == kept
        write(path, make(7))
        assert list(read_trajectories(path, strict=True)) == [*kept, make(7)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=4), st.data())
def test_a_cut_anywhere_is_a_prefix(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "t.ptj"
    records = [make(i, text) for i, text in enumerate(texts)]
    write(path, *records)
    size = path.stat().st_size
    os.truncate(path, data.draw(st.integers(0, size)))
    found = list(read_trajectories(path))
    assert found == records[: len(found)]
    write(path, make(99))
    assert list(read_trajectories(path, strict=True)) == [*found, make(99)]


def test_strict_names_the_byte_of_a_torn_tail(path: Path) -> None:
    first, second = write(path, make(0), make(1))
    os.truncate(path, second - 3)
    with pytest.raises(DataError, match=f"torn at byte {first}"):
        list(read_trajectories(path, strict=True))


def test_zeros_behind_the_last_frame_are_a_torn_tail(path: Path) -> None:
    write(path, make(0))
    with open(path, "ab") as file:
        file.write(bytes(4096))
    assert list(read_trajectories(path)) == [make(0)]
    write(path, make(1))
    assert list(read_trajectories(path, strict=True)) == [make(0), make(1)]


@pytest.mark.parametrize("field", [0, 3, 5, 20], ids=["length", "huge length", "check", "payload"])
def test_corruption_in_the_middle_is_reported_and_can_be_salvaged(path: Path, field: int) -> None:
    first, second, _ = write(path, make(0), make(1), make(2))
    damaged = bytearray(path.read_bytes())
    damaged[first + field] ^= 0x55
    path.write_bytes(damaged)
    reader = read_trajectories(path)
    assert next(reader) == make(0)
    with pytest.raises(DataError, match=f"corrupt at byte {first}, with sound trajectories from byte {second}"):
        next(reader)
    assert list(read_trajectories(path, salvage=True)) == [make(0), make(2)]
    with pytest.raises(DataError, match="corrupt"):
        TrajectoryWriter(path)
    assert path.read_bytes() == bytes(damaged), "a refused file is not touched"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 something else entirely", "not a Palaestra trajectory file"),
        (b"palaestra-trajectories x\n", "not a Palaestra trajectory file"),
        (b"palaestra-trajectories 2\n", "schema 2, this Palaestra reads 1"),
    ],
)
def test_foreign_and_newer_files_are_refused_untouched(path: Path, content: bytes, message: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_trajectories(path))
    with pytest.raises(DataError, match=message):
        TrajectoryWriter(path)
    assert path.read_bytes() == content


def frame(payload: bytes) -> bytes:
    length = struct.pack("<I", len(payload))
    return length + struct.pack("<I", zlib.crc32(length + payload)) + payload


def test_a_decompression_bomb_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_RECORD_BYTES", 1 << 16)
    path.parent.mkdir()
    path.write_bytes(MAGIC + frame(zlib.compress(bytes(1 << 24))))
    with pytest.raises(DataError, match=r"at byte 25 .*beyond 65,536 bytes"):
        list(read_trajectories(path))


@pytest.mark.parametrize(
    "payload",
    [
        b"no zlib",
        zlib.compress(b"\xc1"),
        zlib.compress(msgspec.msgpack.encode({"id": 3})),
        zlib.compress(msgspec.msgpack.encode({"id": "a", "env": "b", "task": "c", "meta": 1})),
        zlib.compress(b"\x81\xa4meta" + b"\x91" * 100_000 + b"\xc0"),
    ],
)
def test_a_checked_frame_that_holds_no_trajectory_is_refused(path: Path, payload: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(MAGIC + frame(payload))
    with pytest.raises(DataError, match="frame at byte 25 holds no trajectory"):
        list(read_trajectories(path))
    write(path, make(1))
    assert list(read_trajectories(path, salvage=True)) == [make(1)]


def test_a_record_beyond_the_limit_is_refused_when_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_RECORD_BYTES", 1000)
    with TrajectoryWriter(path) as writer, pytest.raises(DataError, match="the format ends at 1,000"):
        writer.append(make(0, "x" * 2000))


def test_fields_of_a_later_minor_version_are_ignored(path: Path) -> None:
    record = {**msgspec.to_builtins(make(0)), "colour": "mauve"}
    path.parent.mkdir()
    path.write_bytes(MAGIC + frame(zlib.compress(msgspec.msgpack.encode(record))))
    assert list(read_trajectories(path)) == [make(0)]


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.ptj: cannot read trajectories: No such file"):
        list(read_trajectories(path))


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PalaestraError, match=r"cannot write .*t\.ptj"):
        TrajectoryWriter(tmp_path / "file" / "t.ptj")


FILL = """
import resource, sys
sys.path.insert(0, {tests!r})
from test_store import make
from palaestra.errors import PalaestraError
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
path, n = {path!r}, 0
with TrajectoryWriter(path) as writer:
    try:
        for n in range(100_000):
            writer.append(make(n))
    except PalaestraError as error:
        assert path in str(error), error
        assert "{reason}" in str(error), error
    else:
        raise SystemExit("nothing failed")
    assert [t.id for t in read_trajectories(path, strict=True)] == [make(i).id for i in range(n)]
    writer.truncate_to(len(b"palaestra-trajectories 1\\n"))
    writer.append(make(5))
assert list(read_trajectories(path, strict=True)) == [make(5)]
print("sound after", n)
"""


def fill(path: Path, reason: str, limit: int = 0) -> None:
    script = textwrap.dedent(FILL.format(tests=str(Path(__file__).parent), path=str(path), reason=reason, limit=limit))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "sound after" in done.stdout


def test_a_failing_write_names_the_file_and_leaves_it_sound(tmp_path: Path) -> None:
    fill(tmp_path / "t.ptj", "File too large", limit=20_000)


@pytest.mark.integration
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_names_the_file_and_leaves_it_sound(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        fill(tmp_path / "t.ptj", "No space left on device")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_killed_writer_loses_nothing_that_it_appended(tmp_path: Path) -> None:
    path = tmp_path / "t.ptj"
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import make
from palaestra.trajectories.store import TrajectoryWriter
writer = TrajectoryWriter({str(path)!r})
for i in range(20):
    writer.append(make(i))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert list(read_trajectories(path, strict=True)) == [make(i) for i in range(20)]
