"""`palaestra` and `python -m palaestra`: the command line, guarded from its first import to its end."""

import os
import signal
import sys


def main() -> int:
    """Run the command line of the process; see `palaestra.cli.main`."""
    # Torch's threads else spin while they wait for each other: with a core taken by something else, training then burnt
    # twice the CPU time and took 1.5 times as long. OpenMP reads this when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from palaestra.cli.main import main as command_line

        code = command_line()
        # All is done; Ctrl-C now ends the process without a traceback of what Python was clearing away.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        print("palaestra: interrupted", file=sys.stderr)
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
