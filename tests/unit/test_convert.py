"""Rows of one layout as rows of another, by name; and the description that says what the layouts are."""

from __future__ import annotations

import struct

import pytest

from vxagent.datapath import abi, description, maps
from vxagent.datapath.bpf_map import MapType
from vxagent.datapath.convert import Converter, offsets
from vxagent.datapath.description import Members, from_json, of_build, to_json

OLD = (("port", "H"), ("origin", "B"), ("flags", "B"), ("seen_ns", "Q"))


def convert(old: Members, values: tuple[int | bytes, ...], new: Members) -> tuple[int | bytes, ...] | None:
    """Values of a struct, as another one has them."""
    pack = struct.Struct("=" + "".join(code for _, code in old)).pack
    made = Converter(old, new)(pack(*values))
    return None if made is None else struct.Struct("=" + "".join(code for _, code in new)).unpack(made)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (OLD, (7, 1, 2, 99)),
        ((("seen_ns", "Q"), ("flags", "B"), ("port", "H"), ("origin", "B")), (99, 2, 7, 1)),
        ((*OLD, ("tenant", "I")), (7, 1, 2, 99, 0)),
        ((("port", "H"), ("seen_ns", "Q")), (7, 99)),
        ((("port", "I"), ("seen_ns", "Q")), (7, 99)),
        ((("port", "4s"), ("seen_ns", "Q")), (b"\0\0\0\0", 99)),
    ],
    ids=["the same", "another order", "one more", "some less", "wider", "octets of the name of a number"],
)
def test_members_are_found_by_name(new: Members, expected: tuple[int, ...]) -> None:
    assert convert(OLD, (7, 1, 2, 99), new) == expected


def test_a_number_too_large_for_its_new_member_makes_no_row() -> None:
    narrow = (("port", "B"), ("seen_ns", "Q"))
    assert convert(OLD, (255, 1, 2, 99), narrow) == (255, 99)
    assert convert(OLD, (256, 1, 2, 99), narrow) is None


def test_arrays_go_as_far_as_both_do_and_octets_as_far_as_there_is_room() -> None:
    old = (("packets", "4Q"), ("address", "4s"))
    assert convert(old, (1, 2, 3, 4, b"abcd"), (("packets", "2Q"), ("address", "6s"))) == (1, 2, b"abcd\0\0")
    assert convert(old, (1, 2, 3, 4, b"abcd"), (("address", "2s"), ("packets", "5Q"))) == (b"ab", 1, 2, 3, 4, 0)


def test_offsets_are_of_numbers_of_eight_bytes() -> None:
    assert offsets((("port", "I"), ("pad", "4s"), ("packets", "2Q"), ("copies", "Q"))) == {
        "packets[0]": 8,
        "packets[1]": 16,
        "copies": 24,
    }


def test_every_map_has_structs_of_its_sizes() -> None:
    declared = maps.declare(maps.DEFAULT_SIZES)
    assert maps.STRUCTS.keys() == declared.keys()
    for name, spec in declared.items():
        key, value = maps.STRUCTS[name]
        if spec.type is not MapType.RINGBUF:
            assert (key.size, value.size) == (spec.key_size, spec.value_size), name


def test_a_description_comes_back_as_it_was_written() -> None:
    ours = of_build(maps.Sizes(fdb=4096))
    assert from_json(to_json(ours)) == ours
    assert ours.layout == abi.LAYOUT


def test_a_map_of_a_kind_that_is_not_known_is_left_out() -> None:
    text = to_json(of_build(maps.DEFAULT_SIZES)).replace(f'"type": {int(MapType.LPM_TRIE)}', '"type": 999')
    assert "prefixes" not in from_json(text).tables


def test_descriptions_are_alike_whatever_the_numbers_of_entries() -> None:
    ours, larger = of_build(maps.DEFAULT_SIZES), of_build(maps.Sizes(fdb=4096))
    assert ours != larger
    assert ours.is_like(larger)
    fewer = description.Description(layout=1, tables={n: t for n, t in ours.tables.items() if n != "moves"})
    assert not ours.is_like(fewer)
