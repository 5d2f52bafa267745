"""`palaestra` and `python -m palaestra`: the command line, guarded from its first import to its end."""

import signal
import sys


def main() -> int:
    """Run the command line of the process; see `palaestra.cli.main`."""
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
