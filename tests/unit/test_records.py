"""Records of the cluster survive the state database."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from vxagent.core.effects import Save
from vxagent.model.binding import Phase, Projection
from vxagent.model.cluster import Bridge, ClusterHost, ClusterSegment, Live, Presence, Record
from vxagent.store.local import LocalStore
from vxagent.store.records import from_document, to_document

RECORDS: list[Record] = [
    ClusterHost(host="hv1", vtep="192.0.2.1"),
    ClusterHost(host="hv2"),
    Live(host="hv1", vtep="2001:db8::1", boot="b", session=7),
    ClusterSegment(name="blue", tenant="acme", vni=5010, mtu=1450),
    Presence(segment="blue", host="hv1"),
    Bridge(segment="blue", host="hv1"),
    Projection(
        segment="blue",
        port="vm7",
        owner="hv1",
        next="hv2",
        phase=Phase.SWITCHED,
        epoch=3,
        macs=("02:00:00:00:00:07",),
        ips=("10.0.0.7", "fd00::/64"),
        revision=9,
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_was_saved_is_read_again(record: Record, tmp_path: Path) -> None:
    with closing(LocalStore(tmp_path)) as store:
        store.save(Save(put={("cluster", "x"): to_document(record)}))
        assert from_document(store.load()["cluster", "x"]) == record


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"record": "moon"},
        {"record": "has", "segment": "blue"},
        {"record": "has", "segment": "blue", "host": 7},
        {"record": "has", "segment": "blue", "host": "no host"},
        {"record": "host", "host": "hv1", "vtep": "nowhere"},
        {"record": ["has"]},
    ],
)
def test_what_cannot_be_read_is_not_there(document: dict[str, object]) -> None:
    assert from_document(document) is None
