"""Link events in batches."""

from __future__ import annotations

from vxagent.model.device import Device
from vxagent.netlink.base import LinkChange
from vxagent.runtime.inbox import LinkInbox


def came(ifindex: int, ifname: str = "tap", *, up: bool = True) -> LinkChange:
    return LinkChange(ifindex=ifindex, device=Device(ifname=f"{ifname}{ifindex}", ifindex=ifindex, up=up))


def went(ifindex: int) -> LinkChange:
    return LinkChange(ifindex=ifindex, device=None)


def batches(*events: LinkChange, limit: int = 100) -> list[list[LinkChange]]:
    """All batches; events of devices named tap count towards the limit."""
    inbox = LinkInbox()
    for event in events:
        inbox.put(event)
    found = []
    while inbox:
        found.append(inbox.take(limit, lambda c: c.device is not None and c.device.ifname.startswith("tap")))
    return found


def test_of_several_events_of_a_device_the_last_counts() -> None:
    assert batches(came(1, up=False), came(2), came(1), came(1, up=False), went(2)) == [[came(1, up=False), went(2)]]


def test_a_device_that_went_and_came_is_two() -> None:
    assert batches(came(1), went(1), came(1), came(2)) == [[went(1)], [came(1), came(2)]]


def test_a_batch_holds_so_many_that_count_and_any_others() -> None:
    others = [came(n, "other") for n in range(10, 20)]
    assert batches(*others, came(1), came(2), *others, came(3), limit=2) == [[*others, came(1), came(2)], [came(3)]]


def test_lost_events_are_remembered_until_everything_is_read_anew() -> None:
    inbox = LinkInbox()
    assert not inbox
    inbox.put(came(1))
    inbox.put(None)
    inbox.take(10, lambda _: True)
    assert inbox
    assert inbox.lost
    inbox.clear()
    assert not inbox
