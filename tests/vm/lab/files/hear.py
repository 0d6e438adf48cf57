"""Counts frames that a device gets or sends: `hear.py DEVICE WANTED LAST TOLD`, the second and third in hex.

Creates the file TOLD when it listens. Frames that contain WANTED count, up to the first one that contains LAST; then it
prints how many. Exit code 1: nothing came for 300 s.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

_ALL = 3  # ETH_P_ALL
_PATIENCE_S = 300


def main(device: str, wanted: bytes, last: bytes, told: str) -> None:
    """Listen to the end."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as listening:
        listening.bind((device, 0))
        listening.settimeout(_PATIENCE_S)
        Path(told).touch()
        heard = 0
        while last not in (frame := listening.recv(1 << 16)):
            heard += wanted in frame
        print(heard)


if __name__ == "__main__":
    main(sys.argv[1], bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3]), sys.argv[4])
