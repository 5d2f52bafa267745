import asyncio
import os
import signal
import socket
import threading

from support.processes import open_files

from palaestra.envs.isolation.lazyloop import LazyLoop


def test_a_loop_that_rests_has_no_descriptors_and_works_again() -> None:
    before, loop = open_files(), LazyLoop()
    for _ in range(3):
        assert open_files() == before
        loop.run_until_complete(asyncio.sleep(0.001))
        assert open_files() > before
        assert loop.rest()
    assert open_files() == before
    asked = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
    loop.call_later(0.01, asked.start)
    loop.run_forever()
    asked.join()
    loop.close()
    assert open_files() == before


def test_a_loop_that_never_waited_rests() -> None:
    loop = LazyLoop()
    loop.run_until_complete(asyncio.sleep(0))
    assert loop.rest()
    assert loop.rest()
    loop.close()


def test_no_rest_where_a_file_is_watched() -> None:
    loop = LazyLoop()
    near, far = socket.socketpair()
    with near, far:
        seen: list[bytes] = []
        loop.add_reader(near, lambda: seen.append(near.recv(9)))
        assert not loop.rest()
        far.send(b"still")
        loop.run_until_complete(asyncio.sleep(0.01))
        assert seen == [b"still"]
        loop.remove_reader(near)
        assert loop.rest()
    loop.close()


def test_no_rest_where_a_signal_is_handled() -> None:
    loop = LazyLoop()
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    assert not loop.rest()
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    loop.run_forever()  # until the signal
    loop.remove_signal_handler(signal.SIGUSR1)
    assert loop.rest()
    loop.close()
