"""`kinema`, and `python -m kinema`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is being imported says so and nothing else."""
    try:
        from kinema.cli import main as command
    except KeyboardInterrupt:  # at exit, half-imported libraries may have traces of their own
        os.write(sys.stderr.fileno(), b"interrupted; nothing was written.\n")
        os._exit(128 + signal.SIGINT)
    command()


if __name__ == "__main__":
    main()
