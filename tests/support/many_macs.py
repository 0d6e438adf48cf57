"""Sends as many stations in turn, as fast as it can, until it is killed: `many_macs.py IFNAME PREFIX COUNT TO`.

PREFIX: the first three octets of their MACs, as hex; COUNT: how many; TO: the MAC that all of them send to. Run by
path, in the sender's namespace, with the standard library alone.
"""

from __future__ import annotations

import itertools
import socket
import sys

EXPERIMENTAL = b"\x88\xb5"  # IEEE 802-2014, table 9-2


def main(ifname: str, prefix: str, count: int, to: str) -> None:
    """Send."""
    head, tail = bytes.fromhex(to + prefix), EXPERIMENTAL + bytes(46)
    frames = [head + n.to_bytes(3, "big") + tail for n in range(count)]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((ifname, 0))
        for frame in itertools.cycle(frames):
            sock.send(frame)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
