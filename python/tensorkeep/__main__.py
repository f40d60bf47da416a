"""The command line: ``tensorkeep``, and ``python -m tensorkeep``."""

from __future__ import annotations

import sys

from ._tensorkeep import command_line

__all__ = ["main"]


def main() -> int:
    """Runs the command line with this process's arguments, and returns its exit code."""
    sys.stdout.flush()
    return command_line(["tensorkeep", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
