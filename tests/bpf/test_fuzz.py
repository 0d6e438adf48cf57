"""The loaded programs do what the reference switch does, for settings and frames that hypothesis draws."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.bench import Bench
from fuzz.play import Game, play
from fuzz.rows import ROWS
from fuzz.run import fuzz
from fuzz.tally import Tally

FRAMES = 20_000
SEED = int(os.environ.get("FUZZ_SEED", "1"))  # alike in every run: what differs is a change's doing; `make fuzz` draws


@pytest.fixture(scope="module")
def bench(bytecode_cache: Path) -> Iterator[Bench]:
    """Taps and programs for all games."""
    made = Bench(bytecode_cache)
    with made.inside():
        yield made
    made.close()


@pytest.mark.parametrize("game", ROWS.values(), ids=ROWS)
def test_what_has_differed_once(bench: Bench, game: Game) -> None:
    play(bench, game, Tally())


@pytest.mark.timeout(900)
def test_frames_that_nobody_thought_of(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty thousand of them, with every verdict, reason and event among them."""
    with capsys.disabled():
        sys.stderr.write(f"FUZZ_SEED={SEED} ")
    tally = Tally()
    fuzz(bench, tally, start=SEED, frames=FRAMES, most=5 * FRAMES)
    assert not tally.missed(), f"not reached with FUZZ_SEED={SEED}"
