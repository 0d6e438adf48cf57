"""Sends UDP as fast as it can, until it is killed: `blast.py ADDRESS PORT SIZE SEGMENTS`.

SIZE bytes of payload a datagram; SEGMENTS of them are handed to the kernel at once and travel as one GSO frame.
Run by path, in the sender's namespace, with the standard library alone.
"""

from __future__ import annotations

import socket
import sys

UDP_SEGMENT = 103  # <linux/udp.h>


def main(address: str, port: int, size: int, segments: int) -> None:
    """Send."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        sock.connect((address, port))
        data = bytes(size * segments)
        while True:
            sock.send(data)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
