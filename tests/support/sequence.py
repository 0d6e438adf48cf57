"""Streams of numbered frames, and what became of them, each end in a process of its own.

    Sender ──► frames that carry a number ──► Receiver: received, lost, duplicated, out of order

Run as a script, with its descriptor inherited and its task as JSON, it is one of the two ends.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ETHERTYPE = b"\x88\xb5"  # IEEE: local experimental
UDP = b"\x08\x00"
NUMBER = struct.Struct("=8sQ")
MAGIC = b"sequence"
_HEADERS = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 58, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2") + struct.pack(
    "!HHHH", 7777, 7777, 38, 0
)
_ROOM = 64 << 20
_QUIET_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a receiver got of one stream."""

    received: int
    lost: int
    duplicated: int
    reordered: int


def frame(sender: str, receiver: str, *, tag: bytes = b"") -> bytes:
    """UDP over IPv4, without a checksum, in which the number is still missing."""
    mac = [bytes.fromhex(text.replace(":", "")) for text in (receiver, sender)]
    return mac[0] + mac[1] + tag + UDP + _HEADERS


def packet_socket(ifname: str) -> socket.socket:
    """A packet socket for everything at a device of the caller's namespace."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.setsockopt(socket.SOL_SOCKET, 33, _ROOM)  # SO_RCVBUFFORCE
    sock.bind((ifname, 0))
    return sock


class End:
    """One end, in a process. `fd` is a tap's (frames behind a virtio_net_hdr) or a packet socket's."""

    def __init__(self, fd: int, **task: Any) -> None:
        os.set_blocking(fd, True)
        words = [sys.executable, "-I", str(Path(__file__)), json.dumps({**task, "fd": fd})]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(fd,), text=True
        )

    def finish(self) -> Any:
        """End it; what it has counted."""
        answer, _ = self._process.communicate(timeout=30)
        return json.loads(answer)

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate()


class Stream:
    """Frames of one sender to one receiver.

    Args:
        out, into: descriptors of the two ends.
        frame: what is sent, in front of the number.
        is_tap: of out and of into.
        per_second: about as many.
    """

    def __init__(self, out: int, into: int, frame: bytes, *, is_tap: tuple[bool, bool], per_second: int) -> None:
        key = frame[:12].hex()
        self._receiver = End(into, role="receive", tap=is_tap[1], key=key)
        self._sender = End(out, role="send", tap=is_tap[0], frame=frame.hex(), per_second=per_second)

    def finish(self) -> tuple[int, Heard]:
        """(frames sent, what arrived)."""
        sent = self._sender.finish()
        return sent, Heard(**self._receiver.finish())

    def kill(self) -> None:
        """End both processes."""
        self._sender.kill()
        self._receiver.kill()


def _send(fd: int, frame: bytes, header: bytes, per_second: int) -> int:
    sent, began = 0, time.monotonic()
    while not select.select([0], [], [], 0)[0]:
        due = int((time.monotonic() - began) * per_second)
        if due <= sent:
            time.sleep(0.0005)
        for number in range(sent, due):
            os.write(fd, header + frame + NUMBER.pack(MAGIC, number))
        sent = max(sent, due)
    return sent


def _receive(fd: int, key: bytes, skip: int) -> dict[str, int]:
    """Numbers are counted from 0: what never came, up to the highest one, is lost; of what was sent after it
    the sender's own count tells."""
    seen: set[int] = set()
    duplicated = reordered = 0
    highest, ending = -1, 0.0
    while not ending or time.monotonic() < ending:
        ready = select.select([fd] if ending else [fd, 0], [], [], 0.2)[0]
        if 0 in ready and not ending:
            ending = time.monotonic() + _QUIET_S
        if fd not in ready:
            continue
        data = os.read(fd, 2048)[skip:]
        at = data.find(MAGIC)
        if data[:12] != key or at < 0:
            continue
        number = NUMBER.unpack_from(data, at)[1]
        duplicated += number in seen
        reordered += number < highest
        seen.add(number)
        highest = max(highest, number)
    return {"received": len(seen), "lost": highest + 1 - len(seen), "duplicated": duplicated, "reordered": reordered}


def _main() -> None:
    task = json.loads(sys.argv[1])
    fd, header = task["fd"], bytes(10 if task["tap"] else 0)
    counted: Any
    if task["role"] == "send":
        counted = _send(fd, bytes.fromhex(task["frame"]), header, task["per_second"])
    else:
        counted = _receive(fd, bytes.fromhex(task["key"]), len(header))
    sys.stdout.write(json.dumps(counted))


if __name__ == "__main__":
    _main()
