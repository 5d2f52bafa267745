"""The first process of a sandbox: it runs commands and moves files for whoever holds the other end of its stdin.

Its files are sent to the `python3` of whatever image there is (see `palaestra.sandboxes.boot`), so that they need
nothing but Python 3.8 and each other. One loop without threads; as process 1 of its sandbox it cannot be killed from
inside, and reaps what others leave behind. When its stdin ends it ends, and with it, by the kernel's hand, everything
in the sandbox.
"""
