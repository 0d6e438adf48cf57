"""Carries frames between devices in user space, as a process of its own: the hypervisor's part of a VM with a tap,
and the VLANs of a physical network.

    pump.py [held] TRUNK BRANCH…

TRUNK is `tap:FD` or `packet:FD`; a BRANCH is `all=FD` (frames as they are), `untagged=FD` or `VID=FD` (the tag is
taken off and put on), each FD a tap. Every descriptor is inherited, non-blocking, and carries frames behind a struct
virtio_net_hdr, so that GSO and partial checksums pass through. Ends when its standard input does, having carried what
had come until then. With `held` it begins at the first byte there.

Run by path, with the standard library alone: it has to start fast.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

VNET_HDR = struct.Struct("=BBHHHH")  # <linux/virtio_net.h>: flags gso_type hdr_len gso_size csum_start csum_offset
NEEDS_CSUM = 1
TAG_AT = VNET_HDR.size + 12  # behind both MACs
TAG = 4
TPID = 0x8100
VID_MASK = 0xFFF
LARGEST = VNET_HDR.size + 14 + 2 * TAG + 65535
BURST = 64  # frames taken from one device before the next one's turn
LAST = 1 << 20  # at the end: more than a tap's queue holds

SOL_PACKET = 263
PACKET_AUXDATA = struct.Struct("=IIIHHHH")  # <linux/if_packet.h>: status len snaplen mac net vlan_tci vlan_tpid
VLAN_VALID = 1 << 4

Read = Callable[[], bytes]
Write = Callable[[bytes], object]


def _shift(header: bytes, by: int) -> bytes:
    """The header for a frame whose payload moved by that many bytes."""
    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset = VNET_HDR.unpack(header)
    if flags & NEEDS_CSUM:
        csum_start += by
    if hdr_len:
        hdr_len += by
    return VNET_HDR.pack(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)


def push_tag(frame: bytes, tpid: int, tci: int) -> bytes:
    """`frame`, header first, with a tag in front of its EtherType."""
    tag = struct.pack("!HH", tpid, tci)
    return _shift(frame[: VNET_HDR.size], TAG) + frame[VNET_HDR.size : TAG_AT] + tag + frame[TAG_AT:]


def pop_tag(frame: bytes) -> tuple[int, bytes]:
    """(VID, `frame` without its tag); VID 0 and the frame as it is where there is none."""
    if frame[TAG_AT : TAG_AT + 2] != b"\x81\x00":
        return 0, frame
    vid = int.from_bytes(frame[TAG_AT + 2 : TAG_AT + 4], "big") & VID_MASK
    return vid, _shift(frame[: VNET_HDR.size], -TAG) + frame[VNET_HDR.size : TAG_AT] + frame[TAG_AT + TAG :]


class Tap:
    """A tap's descriptor; the kernel puts tags into the frame."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self) -> bytes:
        """One frame, header first."""
        return os.read(self.fd, LARGEST)

    def write(self, frame: bytes) -> None:
        """Hand one over; a device that is down or full loses it, as a NIC does."""
        with suppress(OSError):
            os.write(self.fd, frame)


class Packet:
    """A packet socket; the kernel keeps the outer tag beside the frame."""

    def __init__(self, sock: socket.socket) -> None:
        self.fd = sock.fileno()
        self._socket = sock

    def read(self) -> bytes:
        """One frame, header first, with its tag put back."""
        frame, beside, _flags, _address = self._socket.recvmsg(LARGEST, socket.CMSG_SPACE(PACKET_AUXDATA.size))
        for level, _kind, data in beside:
            if level == SOL_PACKET:
                status, _, _, _, _, tci, tpid = PACKET_AUXDATA.unpack(data[: PACKET_AUXDATA.size])
                if status & VLAN_VALID:
                    return push_tag(frame, tpid or TPID, tci)
        return frame

    def write(self, frame: bytes) -> None:
        """Send one; a device that is down or full loses it."""
        with suppress(OSError):
            self._socket.send(frame)


def open_end(text: str) -> Tap | Packet:
    """`tap:FD` or `packet:FD`."""
    kind, fd = text.split(":")
    return Tap(int(fd)) if kind == "tap" else Packet(socket.socket(fileno=int(fd)))


def routes(trunk: Tap | Packet, branches: list[str]) -> dict[int, tuple[Read, Write]]:
    """For each descriptor how a frame is read from it and where it goes."""
    taps: dict[int, Tap] = {}
    table: dict[int, tuple[Read, Write]] = {}
    for branch in branches:
        name, fd = branch.split("=")
        tap = Tap(int(fd))
        if name == "all":
            return {trunk.fd: (trunk.read, tap.write), tap.fd: (tap.read, trunk.write)}
        vid = 0 if name == "untagged" else int(name)
        taps[vid] = tap
        table[tap.fd] = (tap.read, _tagging(trunk, vid))

    def from_trunk(frame: bytes) -> None:
        vid, untagged = pop_tag(frame)
        if vid in taps:
            taps[vid].write(untagged)

    table[trunk.fd] = (trunk.read, from_trunk)
    return table


def _tagging(trunk: Tap | Packet, vid: int) -> Write:
    if not vid:
        return trunk.write
    return lambda frame: trunk.write(push_tag(frame, TPID, vid))


def carry(table: dict[int, tuple[Read, Write]], leash: int) -> None:
    """Pump until `leash` closes or a device is removed."""
    poll = select.poll()
    poll.register(leash, select.POLLIN)
    for fd in table:
        poll.register(fd, select.POLLIN)
    while True:
        ready = [fd for fd, _event in poll.poll()]
        ends = leash in ready
        for fd in table if ends else ready:
            if not carry_some(*table[fd], LAST if ends else BURST):
                return
        if ends:
            return


def carry_some(read: Read, write: Write, most: int) -> bool:
    """Carry what waits at one device; False: the device is gone."""
    try:
        for _ in range(most):
            write(read())
    except OSError as exc:
        return exc.errno in (errno.EAGAIN, errno.ENETDOWN)
    return True


def main(words: list[str]) -> None:
    """Do as the command line says."""
    held = words[0] == "held"
    table = routes(open_end(words[held]), words[1 + held :])
    if not held or os.read(0, 1):
        carry(table, leash=0)


if __name__ == "__main__":
    main(sys.argv[1:])
