"""The long run: `make fuzz FRAMES=… SEED=…`, as root. Prints docs/fuzz.md."""

from __future__ import annotations

import argparse
import datetime
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from fuzz.bench import Bench
from fuzz.run import fuzz
from fuzz.tally import Tally

INTRODUCTION = """# The reference switch and the loaded programs

`make fuzz` prints this page. A switch in plain Python, written from the table of a frame's walk alone
(`tests/reference/`), and the loaded programs get the same settings and frames, which hypothesis draws
(`tests/fuzz/`). Verdict and reason of every frame, the bytes of what leaves, FDB, buckets, learning, events and all
counters must agree. The programs run on taps, in tunnels and by test run, with a clock that the run sets. What
differs is shrunk and printed as a row for `tests/fuzz/rows.py`; `tests/bpf/test_fuzz.py` plays these rows, and 20,000
frames that are the same in every run.
"""


def main() -> int:
    """Exit code: 0 no difference, 1 one, or something was not reached."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Compare the programs with the reference switch.")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    sys.stderr.write(f"seed {arguments.seed}\n")
    tally, began = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        bench = Bench(Path(cache))
        try:
            with bench.inside():
                fuzz(bench, tally, start=arguments.seed, frames=arguments.frames)
        finally:
            bench.close()
    machine = f"Linux {os.uname().release}, {os.uname().machine}, {os.cpu_count()} CPUs"
    print(INTRODUCTION)
    print(f"{datetime.date.today()}, {machine}, seed {arguments.seed}, {time.monotonic() - began:.0f} s:")
    print("\n".join(tally.lines()))
    if missed := tally.missed():
        sys.stderr.write(f"not reached: {', '.join(sorted(missed))}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
