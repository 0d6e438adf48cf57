"""The console script, also as `python -m vxagent_cli`.

Loading the commands takes a tenth of a second, in which Ctrl-C shall end a call as quietly as later on.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        from vxagent_cli import app  # noqa: PLC0415  # what takes that long
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT
    app.main()


if __name__ == "__main__":
    main()
