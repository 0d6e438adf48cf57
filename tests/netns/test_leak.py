"""Isolation, proven rather than hoped; `support.leak` draws the switch. `make leaks` goes on for longer."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from support import frames
from support.lan import running_lan
from support.leak import Leak, leaking
from support.leak_frames import mark
from vxagent.lab.traffic import send_frames
from vxagent.lab.waiting import wait_until

CHANGES = 80
SEED = os.environ.get("VXAGENT_SEED") or secrets.token_hex(4)


@pytest.fixture
def leak() -> Iterator[Leak]:
    """Traffic of three tenants."""
    print(f"VXAGENT_SEED={SEED}")  # noqa: T201  # pytest shows it with a failure
    with running_lan() as lan, leaking(lan, SEED) as leak:
        yield leak


@pytest.mark.timeout(120)
def test_no_tenant_hears_another_one_whatever_is_changed(leak: Leak) -> None:
    leak.change(CHANGES)
    leak.settle()
    assert leak.traffic.leaks == []
    assert all(leak.done[kind] for kind in ("set_port", "move", "replug", "rehome", "reload", "die")), leak.done


def test_a_frame_of_another_tenant_would_be_found(leak: Leak) -> None:
    """What is put straight on the last leg of a port, or where the host's stack listens, is no tenant's there."""
    foreign = frames.ethernet(frames.BROADCAST, frames.mac(99), frames.payload(mark("b")))
    send_frames(leak.lan.switch, "av1", foreign)
    wait_until(lambda: leak.traffic.leaks, what="the frame of b is found at av1")
    assert leak.traffic.leaks[0].startswith("at av1, which is a: of b: ff")


def test_what_the_host_says_would_be_found(leak: Leak) -> None:
    device = leak.lan.device("av1")["address"]
    send_frames(leak.lan.switch, "av1", frames.ethernet(frames.BROADCAST, bytes.fromhex(device.replace(":", ""))))
    wait_until(lambda: leak.traffic.leaks, what="the host's frame is found at av1")
    assert leak.traffic.leaks[0].startswith("at av1, which is a: of the host: ff")
