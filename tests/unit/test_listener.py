"""Whoever calls is heard although there is no descriptor left for him."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from vxagent.runtime.listener import RESERVE, Listener


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """One that does not block, as asyncio has it."""
    with Listener(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        yield listener


@pytest.fixture
def callers(listener: Listener) -> Iterator[list[socket.socket]]:
    """Those who wait, one more than there is in reserve."""
    with ExitStack() as open_:
        found = [open_.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(RESERVE + 1)]
        for one in found:
            one.connect(listener.getsockname())
        yield found


@pytest.fixture
def exhausted(listener: Listener, callers: list[socket.socket]) -> Iterator[None]:
    """This process may open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
        with suppress(OSError):
            while True:
                held.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        yield


@pytest.mark.usefixtures("exhausted")
def test_callers_are_heard_by_the_reserve_and_the_rest_wait(listener: Listener) -> None:
    heard = [listener.accept()[0] for _ in range(RESERVE)]
    with pytest.raises(BlockingIOError):
        listener.accept()
    heard.pop().close()
    heard.append(listener.accept()[0])
    with pytest.raises(BlockingIOError):
        listener.accept()
    for one in heard:
        one.close()


@pytest.mark.usefixtures("exhausted")
def test_the_reserve_is_filled_again(listener: Listener) -> None:
    for _ in range(RESERVE + 1):
        listener.accept()[0].close()
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_what_is_closed_keeps_no_descriptor(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1 + RESERVE
    listener.close()
    listener.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
