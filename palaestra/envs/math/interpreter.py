"""What runs in the interpreter that runs an agent's code; also its program: `SOURCE` is handed to `python -c`."""

from __future__ import annotations

SOURCE = """
def _run():
    import os, resource, sys
    for pair in sys.argv[1:]:
        name, _, value = pair.partition("=")
        grace = name == "RLIMIT_CPU"  # at the first limit a signal that says why, at the second the end
        resource.setrlimit(getattr(resource, name), (int(value), int(value) + grace))
    with open(0, "rb") as file:
        code = file.read()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0)
    sys.argv[1:] = []
    os.write(1, b"\\x01")
    if b"random" in code:
        import random
        random.seed(0)
    names = sys.modules["__main__"].__dict__
    del names["_run"]
    try:
        exec(compile(code, "<python>", "exec", dont_inherit=True), names)
    except SystemExit:
        raise
    except BaseException as error:
        import traceback
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        sys.stdout.flush()
        traceback.print_exception(error)
        sys.stderr.flush()
        raise SystemExit(1) from None
_run()
"""
"""Limits this process, reads code from its input, says that it begins, and runs it as a program of its own.

Python's generator is seeded, so that code that draws from it prints the same whenever it is run again.
"""
