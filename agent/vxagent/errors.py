"""Everything that vxagent refuses or fails at.

    VxagentError
    ├── Invalid          a value that can never be right
    ├── Refused          right in itself, but not as things stand
    │   ├── NotFound     the object is not there
    │   ├── Conflict     another object is in the way
    │   └── WrongPhase   a migration is not at the point where this can be done
    ├── HostError        this machine cannot do it: rights, kernel, bpffs, device
    │   └── MapFull      a BPF map takes no more entries
    ├── StoreError       the state database cannot be used
    ├── ClusterError     the engine of many hosts did not do it; what this host forwards stays as it is
    │   ├── ClusterAway       no answer, or no quorum; nothing was changed
    │   ├── ClusterAmbiguous  no answer to a change that was sent; it may have been done
    │   ├── ClusterRefused    it does not let us, or holds what this version does not understand
    │   │   └── TooManyKeys   it takes fewer keys in one transaction
    │   ├── ClusterReset      its data were lost or restored: it remembers less than it told before
    │   ├── Compacted         the history that was asked for is no longer kept
    │   └── SessionLost       it no longer takes this host for alive
    └── NoAgent          no agent answers in the run dir

Each one carries a single line: what happened, to which object, and what to do next.
"""

from __future__ import annotations

import errno

_LACKS = {
    errno.EMFILE: "let the agent open more files: LimitNOFILE= of its unit, or `ulimit -n`",
    errno.ENFILE: "let the machine open more files: sysctl fs.file-max",
    errno.ENOSPC: "make room there",
    errno.EROFS: "mount it read-write: mount -o remount,rw",
}
"""What to do about an errno that says what the machine lacks."""


def mend_lack(number: int | None) -> str:
    """What to do about an errno that says what the machine lacks; "" for any other."""
    return _LACKS.get(number or 0, "")


class VxagentError(Exception):
    """Base of all errors that a person may see. `str()` is one line.

    Attributes:
        exit_code: what the command line ends with.
        http_status: what the API answers with.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = what
        self.mend = mend
        super().__init__(f"{what}; {mend}" if mend else what)


class Invalid(VxagentError):
    """A value that can never be right.

    Attributes:
        field: the name of the option or key.
        value: what was given, or None.
        why: what is wrong with it.
    """

    http_status = 422

    def __init__(self, field: str, value: object, why: str) -> None:
        self.field = field
        self.value = value
        self.why = why
        super().__init__(f"{field} {value!r}: {why}" if value is not None else f"{field}: {why}")


class Refused(VxagentError):
    """Right in itself, but not as things stand."""

    http_status = 409


class NotFound(Refused):
    """The object is not there.

    Attributes:
        kind: "segment", "port", "uplink" or "fdb entry".
        name: its name.
        wanted_by: who asks for it, such as "port tap0"; "" for the person.
    """

    http_status = 404

    def __init__(self, kind: str, name: str, *, wanted_by: str = "") -> None:
        self.kind = kind
        self.name = name
        self.wanted_by = wanted_by
        who = f", which {wanted_by} asks for" if wanted_by else ""
        super().__init__(f"no {kind} {name}{who}", f"see `vxagent {kind.split(maxsplit=1)[0]} list`")


class Conflict(Refused):
    """Another object is in the way; the message names it."""


class WrongPhase(Refused):
    """A migration is not at the point where this can be done, or not by this host.

    Attributes:
        port: whose binding it is.
        phase: "bound", "prepared" or "switched".
        step: what was asked for, such as "activate".
    """

    def __init__(self, port: str, phase: str, step: str, why: str, mend: str) -> None:
        self.port = port
        self.phase = phase
        self.step = step
        super().__init__(f"cannot {step} port {port}: {why}", mend)


class HostError(VxagentError):
    """This machine cannot do it: rights, kernel, bpffs, device."""

    @classmethod
    def of(cls, what: str, error: OSError, mend: str = "") -> HostError:
        """What an OSError comes to for people.

        Args:
            what: failed, such as "cannot read the pins".
            mend: where it is not the machine that lacks something.
        """
        where = f" ({error.filename})" if error.filename and str(error.filename) not in what else ""
        return cls(f"{what}: {error.strerror or error}{where}", mend_lack(error.errno) or mend)


class MapFull(HostError):
    """A BPF map takes no more entries.

    Attributes:
        table: the map's name.
    """

    def __init__(self, table: str, size: int) -> None:
        self.table = table
        mend = "remove entries that are no longer needed"
        if table == "fdb":
            mend += ", or give it more room: fdb_entries in vxagent.toml, then `vxagent reload`"
        super().__init__(f"map {table} is full ({size} entries)", mend)


class StoreError(VxagentError):
    """The state database cannot be used; it is left as it is."""


class ClusterError(VxagentError):
    """The engine of many hosts did not do it. What this host forwards stays as it is."""

    http_status = 503


class ClusterAway(ClusterError):
    """No member answers, or there is no quorum; nothing was changed."""


class ClusterAmbiguous(ClusterError):
    """No answer came to a change that had been sent: it may have been done, or may yet be.

    Attributes:
        op: the request's name, for who asks again; "" where it has none.
    """

    http_status = 504
    op = ""


class ClusterRefused(ClusterError):
    """The engine does not let us, or holds what this version does not understand."""

    http_status = 502


class TooManyKeys(ClusterRefused):
    """It takes fewer keys in one transaction."""


class ClusterReset(ClusterError):
    """The engine's data were lost or restored from a copy: it remembers less than it has told us before."""


class Compacted(ClusterError):
    """The history that was asked for is no longer kept; what is now can still be read.

    Attributes:
        revision: the oldest that is kept; 0: not known.
    """

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        super().__init__("the cluster no longer keeps the history that was asked for", "read anew what is there")


class SessionLost(ClusterError):
    """The engine no longer takes this host for alive: its lease has run out, or it has none yet.

    Attributes:
        doubtful: no answer came to the same change before: that may have been done.
    """

    doubtful = False


class NoAgent(VxagentError):
    """No agent answers in the run dir."""

    exit_code = 3
    http_status = 503
