"""The parts of `make soak` that need no device: what counts as grown, and the line of a round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from soak.run import TITLES, Round, Soak, line, row
from soak.sample import DATABASE_GROWTH_KIB, RSS_GROWTH_KIB, STEADY_KIB, THREADS_MORE, Sample, differences, growth
from vxagent.bench.faults.figures import Figures

EXACT = {
    "fds": 69, "programs": 6, "maps": 31, "links": 12, "pins": 45, "devices": 27, "namespaces": 2, "files": 7,
    "rows": 50, "children": 0,
}  # fmt: skip
WARM = Sample(
    rss_kib=45_000, threads=6, database_kib=900, exact=EXACT, entries={"fdb": 9, "ports": 6}, document="[[segment]]"
)


def test_the_same_is_flat_and_so_is_less_memory() -> None:
    assert differences(WARM, WARM) == []
    assert differences(replace(WARM, rss_kib=40_000, threads=5, database_kib=100), WARM) == []


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("more", [1, -1])
def test_one_more_or_less_is_a_difference(name: str, more: int) -> None:
    sample = replace(WARM, exact=EXACT | {name: EXACT[name] + more})
    assert differences(sample, WARM) == [f"{name}: {EXACT[name] + more}, not {EXACT[name]}"]


def test_entries_are_compared_map_by_map() -> None:
    sample = replace(WARM, entries={"fdb": 10, "ports": 5, "moves": 1})
    assert differences(sample, WARM) == [
        "entries of fdb: 10, not 9",
        "entries of ports: 5, not 6",
        "entries of moves: 1, not 0",
    ]


def test_another_document_is_a_difference() -> None:
    assert differences(replace(WARM, document=""), WARM) == ["`export` is another document"]


@pytest.mark.parametrize(
    ("field", "most"),
    [
        ("rss_kib", WARM.rss_kib + RSS_GROWTH_KIB),
        ("database_kib", WARM.database_kib + DATABASE_GROWTH_KIB),
        ("threads", WARM.threads + THREADS_MORE),
    ],
)
def test_what_may_vary_has_a_bound(field: str, most: int) -> None:
    def grown(to: int) -> Sample:
        return Sample(**{**{name: getattr(WARM, name) for name in WARM.__slots__}, field: to})

    assert differences(grown(most), WARM) == []
    assert len(differences(grown(most + 1), WARM)) == 1


def steady(*rss_kib: int) -> list[Sample]:
    """Samples of one agent."""
    return [replace(WARM, rss_kib=one) for one in rss_kib]


def test_an_agent_that_lives_on_may_breathe_and_not_grow() -> None:
    assert growth(steady(45_000, 43_000, 48_000, 46_000, 47_048, 49_000, 47_000)) == []
    most = 45_000 + STEADY_KIB
    assert growth(steady(45_000, 45_000, 45_000, most, most, most)) == []
    (found,) = growth(steady(45_000, 45_000, 45_000, most + 1, most + 1, most + 1))
    assert "RSS in KiB has grown" in found
    assert growth(steady(45_000, 45_000, 45_000, 45_000, 45_000, 60_000)) == []


def test_few_rounds_tell_nothing_of_growth() -> None:
    assert growth(steady(40_000, 42_000, 44_000, 46_000, 48_000)) == []


class Growing(Soak):
    """An agent that takes so many KiB in each round; no device is needed for that."""

    def __init__(self, kib: int) -> None:
        self._kib = kib
        self._rss = WARM.rss_kib

    def _made(self, name: str) -> Round:
        self._rss += self._kib
        sample = replace(WARM, rss_kib=self._rss)
        return Round(name=name, operations=1, figures=Figures(fault=name, sent=1), sample=sample, wrong=())

    def warm_up(self) -> Round:
        return self._made("warm")

    def round(self, name: str, seconds: float, *, restarts: bool) -> Round:
        return self._made(name)

    def fresh(self) -> Round:
        return self._made("fresh")


@pytest.mark.parametrize(("kib", "grown"), [(200, []), (350, ["20"])])
def test_memory_that_grows_round_by_round_is_found_out(kib: int, grown: list[str]) -> None:
    rounds = list(Growing(kib).rounds(110))
    assert len(rounds) == 22
    assert [one.name for one in rounds if one.wrong] == grown


def test_a_round_is_a_line_under_the_titles_also_without_a_sample() -> None:
    figures = Figures(fault="1", sent=1_234_567, lost=2)
    done = Round(name="1", operations=12, figures=figures, sample=WARM, wrong=())
    cells = dict(zip(TITLES, row(done), strict=True))
    assert (cells["OPS"], cells["SENT"], cells["LOST"], cells["RSS MiB"]) == ("12", "1,234,567", "2", "43.9")
    assert (cells["FDS"], cells["ENTRIES"], cells["DB KiB"], cells["CHILDREN"]) == ("69", "15", "900", "0")
    assert set(row(replace(done, sample=None))[7:]) == {"-"}
    assert len({len(line(one)) for one in (TITLES, row(done), row(replace(done, sample=None)))}) == 1
