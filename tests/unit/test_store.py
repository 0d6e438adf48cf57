"""The state database: what is acknowledged is kept, what cannot be used is left alone."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from vxagent.core.effects import Document, Finish, Save, inverse
from vxagent.core.unfinished import UNFINISHED
from vxagent.errors import StoreError
from vxagent.store.base import Store
from vxagent.store.fake import FakeStore
from vxagent.store.local import FILE, SCHEMA, LocalStore

BLUE: Document = {"name": "blue", "vlan": 10, "vni": None, "macs": ["02:00:00:00:00:01"]}
RED: Document = {"name": "rød", "vlan": None}
KILLS = 20


@pytest.fixture(params=["local", "fake"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with closing(LocalStore(tmp_path) if request.param == "local" else FakeStore()) as store:
        yield store


def put(name: str, document: Document) -> Save:
    return Save(put={("segment", name): document}, old={("segment", name): None})


# Both stores


def test_what_was_saved_is_loaded(store: Store) -> None:
    store.save(put("blue", BLUE))
    store.save(put("rød", RED))
    assert store.load() == {("segment", "blue"): BLUE, ("segment", "rød"): RED}


def test_a_save_replaces_and_deletes_in_one(store: Store) -> None:
    store.save(put("blue", BLUE))
    store.save(Save(put={("port", "blue"): RED}, delete=(("segment", "blue"), ("segment", "absent"))))
    assert store.load() == {("port", "blue"): RED}


def test_the_inverse_of_a_save_undoes_it(store: Store) -> None:
    store.save(put("blue", BLUE))
    change = Save(
        put={("segment", "blue"): RED, ("segment", "red"): RED},
        old={("segment", "blue"): BLUE, ("segment", "red"): None},
    )
    store.save(change)
    undo = inverse(change)
    assert isinstance(undo, Save)
    store.save(undo)
    assert store.load() == {("segment", "blue"): BLUE}


def test_what_is_loaded_is_the_callers_own(store: Store) -> None:
    store.save(put("blue", BLUE))
    store.load()["segment", "blue"]["name"] = "other"
    assert store.load()["segment", "blue"]["name"] == "blue"


KEPT: Document = {"effects": []}


def test_finish_removes_what_is_kept_of_the_last_change_and_nothing_else(store: Store) -> None:
    store.save(Save(put={("segment", "blue"): BLUE, UNFINISHED: KEPT}))
    store.finish(Finish())
    assert store.load() == {("segment", "blue"): BLUE}


# The file


def test_where_finish_cannot_write_it_says_so_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(LocalStore(tmp_path)) as store:
        store.save(Save(put={UNFINISHED: KEPT}))
        store._database.execute("PRAGMA query_only = 1")
        store.finish(Finish())
        assert "what is done stays marked as unfinished: the state database" in caplog.text
        store._database.execute("PRAGMA query_only = 0")
        assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL, as before
        assert store.load() == {UNFINISHED: KEPT}


def test_the_file_is_its_owners_alone_and_survives(tmp_path: Path) -> None:
    with closing(LocalStore(tmp_path)) as store:
        store.save(put("blue", BLUE))
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    with closing(LocalStore(tmp_path)) as store:
        assert store.load() == {("segment", "blue"): BLUE}


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    with closing(LocalStore(tmp_path)) as store:
        assert store.load() == {}


def break_header(path: Path) -> None:
    path.write_bytes(b"this is no database\n" * 100)


def break_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xa5" * 4096
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA + 1}")


def make_foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE photos (name)")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_header, "is corrupt .*; it is left as it is; restore a copy, or move it away"),
        (break_middle, "is corrupt"),
        (cut_short, "is corrupt"),
        (make_newer, f"is of version {SCHEMA + 1}, this vxagent knows {SCHEMA}; use the vxagent that wrote it"),
        (make_foreign, "is not vxagent's; use another state directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_left_as_it_is(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / FILE
    with closing(LocalStore(tmp_path)) as store:
        store.save(Save(put={("segment", f"s{n}"): BLUE for n in range(200)}))
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=message) as refused:
        LocalStore(tmp_path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [FILE]


def test_a_newer_file_that_a_crash_left_is_left_as_it_is_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    crashed = tmp_path / "crashed"
    with closing(LocalStore(tmp_path / "live")) as store:
        store.save(put("blue", BLUE))
        store._database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
        shutil.copytree(tmp_path / "live", crashed)
    before = {name: (crashed / name).read_bytes() for name in (FILE, f"{FILE}-wal")}
    with pytest.raises(StoreError, match=f"is of version {SCHEMA + 1}"):
        LocalStore(crashed)
    assert {name: (crashed / name).read_bytes() for name in before} == before


def test_a_database_that_somebody_holds_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vxagent.store.local._LOCK_TIMEOUT_S", 0.01)
    with closing(LocalStore(tmp_path)) as store, closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"cannot be written: another process holds it; see `fuser "):
            store.save(put("blue", BLUE))
        other.rollback()
        store.save(put("blue", BLUE))
        assert store.load() == {("segment", "blue"): BLUE}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A disk with room for files of `size` bytes."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_fails_the_save_and_nothing_else(tmp_path: Path) -> None:
    with closing(LocalStore(tmp_path)) as store:
        store.save(put("blue", BLUE))
        with file_size_limit(100_000), pytest.raises(StoreError, match="cannot be written"):
            store.save(Save(put={("segment", f"s{n}"): {"pad": "x" * 500} for n in range(1000)}))
        assert store.load() == {("segment", "blue"): BLUE}
        store.save(put("red", RED))
        assert len(store.load()) == 2


def test_sqlite_says_that_the_disk_is_full(tmp_path: Path) -> None:
    with closing(LocalStore(tmp_path)) as store:
        store._database.execute("PRAGMA max_page_count = 5")
        with pytest.raises(StoreError, match=r"cannot be written: the disk is full; make room"):
            store.save(Save(put={("segment", f"s{n}"): {"pad": "x" * 500} for n in range(1000)}))
        store._database.execute("PRAGMA max_page_count = 100000")
        store.save(put("red", RED))
        assert store.load() == {("segment", "red"): RED}


@pytest.mark.parametrize(("room", "says"), [(0, "the disk is full; make room"), (1, "disk I/O error")])
def test_a_start_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, says: str) -> None:
    LocalStore(tmp_path).close()
    before = os.statvfs(tmp_path)
    fields = [*before[:4], room, *before[5:]]
    monkeypatch.setattr("os.statvfs", lambda _: os.statvfs_result(fields))
    with file_size_limit(0), pytest.raises(StoreError, match=f"cannot be used: {says}"):
        LocalStore(tmp_path)
    LocalStore(tmp_path).close()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        LocalStore(tmp_path / "absent")


# kill -9

WRITER = """
import sys
from itertools import count
from pathlib import Path
from vxagent.core.effects import Save
from vxagent.store.local import LocalStore

store = LocalStore(Path(sys.argv[1]))
first = 1 + max((int(document["n"]) for document in store.load().values()), default=0)
for n in count(first):
    # Two halves that belong together, and one that goes.
    halves = {("half", side): {"n": n, "pad": "x" * 2000} for side in "ab"}
    store.save(Save(put={**halves, ("once", str(n)): {"n": n}}, delete=(("once", str(n - 1)),)))
    print(n, flush=True)
"""


def test_kill_9_in_the_middle_of_writing_loses_and_tears_nothing(tmp_path: Path) -> None:
    acknowledged = 0
    for kill in range(KILLS):
        writer = subprocess.Popen((sys.executable, "-c", WRITER, tmp_path), stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(3 + kill * 7 % 20):  # another moment each time
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        acknowledged = int(rest[-1]) if rest else acknowledged
        with closing(LocalStore(tmp_path)) as store:
            found = store.load()
        numbers = {document["n"] for document in found.values()}
        assert len(found) == 3
        assert len(numbers) == 1, "a transaction was torn"
        assert numbers <= {acknowledged, acknowledged + 1}, "an acknowledged write was lost"
        acknowledged = max(int(str(number)) for number in numbers)
