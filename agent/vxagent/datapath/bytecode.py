"""Compiled programs, and the file that keeps them."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytecode:
    """What the compiler made.

    Attributes:
        programs: function name → instructions, with sentinels for map descriptors.
        bcc, llvm: versions that made it.
    """

    programs: Mapping[str, bytes]
    bcc: str
    llvm: str


def read(path: Path, digest: str) -> Bytecode | None:
    """The bytecode in a file, or None if it is absent, damaged or made of other sources than `digest` says."""
    try:
        document = json.loads(path.read_text())
        code = {name: base64.b64decode(text, validate=True) for name, text in document["programs"].items()}
        found = Bytecode(programs=code, bcc=str(document["bcc"]), llvm=str(document["llvm"]))
        whole, same = document["check"] == _check(code), document["digest"] == digest
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        log.warning("not using the bytecode in %s: %s", path, exc)
        return None
    if not whole:
        log.warning("not using the bytecode in %s: its checksum does not match", path)
    return found if whole and same else None


def write(path: Path, digest: str, code: Bytecode) -> None:
    """Write the file at once or not at all.

    Raises:
        OSError: it cannot be written.
    """
    document = {
        "digest": digest,
        "bcc": code.bcc,
        "llvm": code.llvm,
        "check": _check(code.programs),
        "programs": {name: base64.b64encode(insns).decode() for name, insns in code.programs.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, fresh = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(fd, "w") as file:
            json.dump(document, file, indent=1)
        Path(fresh).chmod(0o644)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def hash_of(*parts: str | bytes) -> str:
    """SHA-256 over parts and their lengths, so that no two lists of parts look alike."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def _check(code: Mapping[str, bytes]) -> str:
    return hash_of(*(part for name in sorted(code) for part in (name, code[name])))
