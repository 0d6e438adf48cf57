"""Senders and receivers. What counts is what the receiver got."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from vxagent.lab.namespaces import CommandFailed, Namespace

CHUNK = 1 << 18
IPERF_GRACE_S = 10


def send_frames(namespace: Namespace, ifname: str, *frames: bytes) -> None:
    """Send whole frames, tags included, out of a device.

    Raises:
        OSError: there is no such device, it is down, or a frame is longer than its MTU.
    """
    with namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((ifname, 0))
        for frame in frames:
            sock.send(frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a TCP receiver got.

    Attributes:
        received: bytes.
        seconds: from the first connection attempt to the last byte.
    """

    received: int
    seconds: float


def bulk_tcp(
    sender: Namespace, receiver: Namespace, address: str, *, amount: int = 8 << 20, within: float = 10.0
) -> Transfer:
    """Send bytes over one TCP connection. A network that does not carry them is no error: less is received.

    Args:
        sender, receiver: whose stacks.
        address: the receiver's, IPv4 or IPv6.
        amount: bytes.
        within: seconds after which the sender gives up.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with receiver.entered(), socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, 0))
        probe.listen(1)
        probe.settimeout(within)
        listener = probe.dup()
        listener.settimeout(within)
    received = [0]
    sink = threading.Thread(target=_receive, args=(listener, received, within), daemon=True)
    begun = time.monotonic()
    sink.start()
    with sender.entered():
        source = socket.socket(family)
    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # giving up ends it on both sides
    source.settimeout(within)
    with source, suppress(OSError):
        source.connect(listener.getsockname())
        chunk = memoryview(bytes(CHUNK))
        left = amount
        while left:
            source.settimeout(max(begun + within - time.monotonic(), 0.001))
            left -= source.send(chunk[: min(left, CHUNK)])
        source.shutdown(socket.SHUT_WR)
        source.recv(1)  # until the receiver has read to the end
    sink.join(2 * within)
    return Transfer(received=received[0], seconds=time.monotonic() - begun)


def _receive(listener: socket.socket, received: list[int], within: float) -> None:
    buffer = bytearray(CHUNK)
    with listener, suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(within)
            while size := connection.recv_into(buffer):
                received[0] += size


def iperf3(sender: Namespace, receiver: Namespace, address: str, *, seconds: float = 2.0, streams: int = 1) -> float:
    """TCP throughput in bit/s as iperf3's receiver counts it.

    Raises:
        CommandFailed: iperf3 failed; says what it said.
    """
    server = receiver.start("iperf3", "-s", "-1", "-B", address, "--forceflush", stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        while "listening" not in (line := server.stdout.readline()):
            if not line:
                raise CommandFailed(["iperf3", "-s"], server.wait(), "it does not listen")
        command = ["iperf3", "-J", "-c", address, "-t", str(seconds), "-P", str(streams)]
        done = sender.run("timeout", str(seconds + IPERF_GRACE_S), *command, check=False)
        report = json.loads(done.stdout or "{}")
        if done.returncode != 0 or "error" in report:
            raise CommandFailed(command, done.returncode, str(report.get("error", done.stderr)))
        return float(report["end"]["sum_received"]["bits_per_second"])
    finally:
        server.kill()
        server.communicate()
