import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.isolation.protocol import MAX_MESSAGE_BYTES, Ask, Value
from palaestra.envs.isolation.wire import (
    Fork,
    Forked,
    Frames,
    decode_order,
    decode_reply,
    frame,
    receive_sockets,
    send_sockets,
)
from palaestra.errors import DataError, EnvError


@given(st.lists(st.binary(max_size=30), max_size=8), st.lists(st.integers(1, 25), min_size=1, max_size=20))
def test_frames_come_out_however_the_bytes_are_cut(values: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(Value(value)) for value in values)
    frames, found, at = Frames(), [], 0
    while at < len(stream):
        cut = cuts[at % len(cuts)]
        found += frames.add(stream[at : at + cut])
        at += cut
    assert found == [frame(Value(value))[4:] for value in values]


def test_a_frame_that_is_too_long_is_refused() -> None:
    with pytest.raises(DataError, match="over the limit"):
        Frames().add(struct.pack("<I", MAX_MESSAGE_BYTES + 1) + b"x")


def test_a_long_frame_is_asked_for_at_once() -> None:
    frames = Frames()
    frames.add(struct.pack("<I", 1_000_000) + b"x" * 10)
    assert frames.missing == 1_000_000 - 10


def test_messages_come_back() -> None:
    assert decode_order(frame(Ask("render"))[4:]) == Ask("render")
    assert decode_order(frame(Fork())[4:]) == Fork()
    assert decode_reply(frame(Forked([1, 2]))[4:]) == Forked([1, 2])


@given(st.binary(max_size=60))
def test_nonsense_is_told(packed: bytes) -> None:
    for decode in (decode_order, decode_reply):
        try:
            decode(packed)
        except DataError:
            continue


def test_deep_nesting_is_told() -> None:
    with pytest.raises(DataError):
        decode_reply(b"\x81\xa5value" + b"\x91" * 100_000 + b"\xc0")


def test_what_cannot_be_sent_is_told() -> None:
    with pytest.raises(EnvError, match="JSON"):
        frame(Value(object()))


def test_sockets_travel() -> None:
    one, other = socket.socketpair()
    near, far = socket.socketpair()
    with one, other, near, far:
        assert send_sockets(one, b"data", [far]) == 4
        data, (arrived,) = receive_sockets(other, 100)
        with arrived:
            assert data == b"data"
            assert not arrived.get_inheritable()
            arrived.send(b"through")
            assert near.recv(100) == b"through"
        assert send_sockets(one, b"none", []) == 4
        assert receive_sockets(other, 100) == (b"none", [])
        one.close()
        assert receive_sockets(other, 100) == (b"", [])
