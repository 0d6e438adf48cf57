"""The leak test for as long as you like: `make leaks [SECONDS=600] [SEED=…]`.

Ends with 1 at the first frame that turns up where it must not, and says the seed: the same one makes the same changes
in the same order, under traffic of the same kind.
"""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.lan import running_lan
from support.leak import Leak, leaking
from vxagent.lab.signals import Stopped

AT_ONCE = 30  # changes between two looks at what was found


def main(seconds: float = 600.0, seed: str = "") -> int:
    """Run it; returns what the process ends with."""
    seed = seed or secrets.token_hex(4)
    print(f"SEED={seed}, for {seconds:g} s", flush=True)
    deadline = time.monotonic() + seconds
    with running_lan() as lan, leaking(lan, seed) as leak:
        while time.monotonic() < deadline and not leak.traffic.leaks:
            leak.change(AT_ONCE)
            print(_progress(leak), flush=True)
        if not leak.traffic.leaks:
            leak.settle()
        for found in leak.traffic.leaks:
            print(found)
        print(f"SEED={seed}: {len(leak.traffic.leaks) or 'no'} leaks")
        return 1 if leak.traffic.leaks else 0


def _progress(leak: Leak) -> str:
    heard = sum(sum(port.values()) for port in leak.heard().values())
    return f"{leak.done.total():6} changes, {heard:9} frames heard"


if __name__ == "__main__":
    try:
        sys.exit(main(*(kind(word) for kind, word in zip((float, str), sys.argv[1:], strict=False))))
    except Stopped as exc:
        sys.exit(128 + exc.number)
