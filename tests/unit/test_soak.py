"""The parts of `make soak` that need no device: what counts as grown, and the line of a round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from soak.run import TITLES, Round, line, row
from soak.sample import DATABASE_GROWTH_KIB, RSS_GROWTH_KIB, THREADS_MORE, Sample, differences
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


def test_a_round_is_a_line_under_the_titles_also_without_a_sample() -> None:
    figures = Figures(fault="1", sent=1_234_567, lost=2)
    done = Round(name="1", operations=12, figures=figures, sample=WARM, wrong=())
    cells = dict(zip(TITLES, row(done), strict=True))
    assert (cells["OPS"], cells["SENT"], cells["LOST"], cells["RSS MiB"]) == ("12", "1,234,567", "2", "43.9")
    assert (cells["FDS"], cells["ENTRIES"], cells["DB KiB"], cells["CHILDREN"]) == ("69", "15", "900", "0")
    assert set(row(replace(done, sample=None))[7:]) == {"-"}
    assert len({len(line(one)) for one in (TITLES, row(done), row(replace(done, sample=None)))}) == 1
