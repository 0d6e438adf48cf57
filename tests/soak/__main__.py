"""`make soak [SECONDS=1800] [SEED=…]`, as root: prints a line for each round.

Ends with 1 if something was lost, grew or stayed, and says what. SEED repeats the operations.
"""

from __future__ import annotations

import argparse
import secrets
import sys

from soak.lab import SoakLab
from soak.run import TITLES, Soak, line, row
from support.lan import clean_world
from vxagent.lab.signals import Stopped


def main() -> int:
    """Run it; returns what the process ends with."""
    parser = argparse.ArgumentParser(prog="make soak", description="Random operations under streams of frames.")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", default="")
    given = parser.parse_args()
    seed = given.seed or secrets.token_hex(4)
    print(f"SEED={seed}, for {given.seconds:g} s\n{line(TITLES)}", flush=True)
    wrong: list[str] = []
    with clean_world() as world:
        soak = Soak(SoakLab(world), seed)
        for one in soak.rounds(given.seconds):
            print(line(row(one)), flush=True)
            for what in one.wrong:
                print(f"round {one.name}: {what}", flush=True)
            wrong += one.wrong
            if one.sample is None:
                break
    done = ", ".join(f"{kind} {count}" for kind, count in sorted(soak.operations.done.items()))
    print(f"operations: {done}\nSEED={seed}: {'all is flat' if not wrong else f'{len(wrong)} things are wrong'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Stopped as exc:
        sys.exit(128 + exc.number)
