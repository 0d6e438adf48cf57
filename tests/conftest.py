"""What all tests share: those on devices and programs are skipped where nobody may make them, and take turns."""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is no error
hypothesis.settings.load_profile("unhurried")

NEED_ROOT = {"bpf", "cluster", "netns", "vm"}
TESTS = Path(__file__).parent


def needs_root(item: pytest.Item) -> bool:
    return bool(NEED_ROOT & set(item.path.relative_to(TESTS).parts))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if needs_root(item):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine runs in an event loop of its own. Fixtures run outside of it."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(pyfuncitem.obj(**given))
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outside of everything else: what a test waits for its turn is not part of its timeout."""
    if not needs_root(item):
        return (yield)
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Tests of one tree run beside each other, in all processes of pytest; one that is marked `alone` does not.

    Whoever waits for the room stands in the door, so that those who only share the room do not pass him by. Locks on
    two directories that are there anyway: nothing has to be made or removed, and the kernel lets go of them.
    """
    door, room = (os.open(TESTS / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for name in ("bpf", "netns"))
    try:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
    finally:
        os.close(door)
        os.close(room)
