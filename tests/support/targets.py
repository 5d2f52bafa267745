"""What test workers run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time


def echo(near: socket.socket) -> None:
    """Says back what it hears; some words are orders."""
    while data := near.recv(1000):
        word = data.decode()
        if word == "pid":
            data = str(os.getpid()).encode()
        elif word.startswith("exit "):
            os._exit(int(word[5:]))
        elif word == "die":
            print("on stdout")
            raise RuntimeError("these are my\nlast words")
        elif word == "child":
            data = str(subprocess.Popen(["sleep", "100"], start_new_session=True).pid).encode()
        elif word == "grow":
            hoard = [bytes(bytearray(1000)) for _ in range(100_000)]
            time.sleep(100 if hoard else 0)
        elif word.startswith("environ "):
            data = os.environ.get(word[8:], "-").encode()
        elif word == "files":
            data = str(sorted(os.listdir("/proc/self/fd"))).encode()
        elif word == "stdin":
            data = repr(sys.stdin.read()).encode()
        near.send(data)


def two(one: socket.socket, other: socket.socket) -> None:
    """Carries from one to the other."""
    other.sendall(one.recv(1000))
