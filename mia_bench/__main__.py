"""`mia-bench` and `python -m mia_bench`; imports nothing before Ctrl-C is heeded."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command."""
    try:
        from mia_bench.cli import main as command

        command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
