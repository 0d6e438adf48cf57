"""The state database: SQLite, one file in the state directory.

A document is on the disk when `save` returns (WAL with synchronous=FULL); kill -9 or a power cut in the middle
loses nothing that was acknowledged and leaves no half. A file that cannot be read, or that a newer version wrote,
is left byte for byte as it is.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vxagent import steps
from vxagent.core.effects import Document, Finish, Save
from vxagent.core.unfinished import UNFINISHED
from vxagent.errors import StoreError

log = logging.getLogger(__name__)

FILE = "vxagent.db"
SCHEMA = 1  # PRAGMA user_version; 0 is a file that nobody has written to

_LOCK_TIMEOUT_S = 2.0
_CREATE = f"""
BEGIN;
CREATE TABLE document (kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, name))
    STRICT, WITHOUT ROWID;
PRAGMA user_version = {SCHEMA};
COMMIT;
"""
_PUT = "INSERT INTO document (kind, name, body) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body"
_DELETE = "DELETE FROM document WHERE kind = ? AND name = ?"


class LocalStore:
    """`store.base.Store` in a file.

    It may be made in one thread and used in another, not in two at once: the agent's changes run one at a time.

    Args:
        directory: the state directory, which exists.

    Raises:
        StoreError: the file is corrupt, newer than this version, locked by somebody, or not to be read or written.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        with self._store_errors("cannot be used"):
            if self._is_empty():
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            else:
                self._examine()
            self._database = self._open()

    def load(self) -> dict[tuple[str, str], Document]:
        """Everything."""
        with self._store_errors("cannot be read"):
            rows = self._database.execute("SELECT kind, name, body FROM document")
            return {(kind, name): json.loads(body) for kind, name, body in rows}

    def save(self, effect: Save) -> None:
        """Change it, in one transaction that is on the disk when this returns."""
        put = [(*key, json.dumps(document, separators=(",", ":"))) for key, document in effect.put.items()]
        with self._store_errors("cannot be written"), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(_DELETE, effect.delete)
            self._database.executemany(_PUT, put)
        steps.taken()

    def finish(self, effect: Finish) -> None:
        """Remove what is kept of the last change, without waiting for the disk."""
        try:
            with self._store_errors("cannot be written"):
                self._database.execute("PRAGMA synchronous = NORMAL")
                try:
                    self._database.execute(_DELETE, UNFINISHED)
                    steps.taken()
                finally:
                    self._database.execute("PRAGMA synchronous = FULL")
        except StoreError as error:
            log.warning("what is done stays marked as unfinished: %s", error)

    def close(self) -> None:
        """Let go of the file."""
        with self._store_errors("cannot be closed"):
            self._database.close()

    def _no_room(self) -> bool:
        try:
            return os.statvfs(self.path.parent).f_bavail == 0
        except OSError:
            return False

    def _is_empty(self) -> bool:
        return not self.path.exists() or self.path.stat().st_size == 0

    def _examine(self) -> None:
        """Refuse what is there unless this version can use it, without changing a byte."""
        # Another process that has the file open, or had it open when it was killed, leaves a log beside it.
        # Reading it takes a write lock, so `immutable` serves only where there is none.
        alone = not self.path.with_name(f"{FILE}-wal").exists()
        uri = f"{self.path.absolute().as_uri()}?mode={'ro&immutable=1' if alone else 'ro'}"
        database = sqlite3.connect(uri, uri=True, timeout=_LOCK_TIMEOUT_S)
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA:
                raise StoreError(
                    f"the state database {self.path} is of version {version}, this vxagent knows {SCHEMA}",
                    "use the vxagent that wrote it, or another state directory",
                )
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise StoreError(f"the state database {self.path} is corrupt ({_line(found)})", _RESTORE)
            if version == 0 and database.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise StoreError(f"{self.path} is not vxagent's", "use another state directory")
        finally:
            database.close()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            if database.execute("PRAGMA user_version").fetchone() == (0,):
                database.executescript(_CREATE)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def _store_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise self._store_error(what, error) from error

    def _store_error(self, what: str, error: Exception) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
        if code == sqlite3.SQLITE_IOERR and self._no_room():
            code = sqlite3.SQLITE_FULL  # so it is, if not to SQLite, for the index of a log that cannot grow
        match code:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                why, mend = "another process holds it", f"see `fuser {self.path}`"
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return StoreError(f"the state database {self.path} is corrupt ({_line(error)})", _RESTORE)
            case sqlite3.SQLITE_FULL:
                why, mend = "the disk is full", f"make room on the file system of {self.path.parent}"
            case _:
                why, mend = _line(error), ""
        return StoreError(f"the state database {self.path} {what}: {why}", mend)


_RESTORE = "it is left as it is; restore a copy, or move it away to start anew"


def _line(text: object) -> str:
    return " ".join(str(text).split())
