"""Numbered frames through the switch, and who counts them: processes that run `c/stream.c`."""

from __future__ import annotations

import ipaddress
import json
import secrets
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxagent.bench.faults.figures import Sent, Taken
from vxagent.bench.faults.tunnel import Tunnel
from vxagent.bench.frames import DISCARD, NO_HEADER, PROTOCOL_UDP, SOURCE_PORT
from vxagent.bench.traffic import compiled, two_cpus
from vxagent.errors import HostError
from vxagent.lab.frames import IPV4, ethernet
from vxagent.lab.namespaces import Namespace
from vxagent.lab.ping import checksum

SOURCE = Path(__file__).parents[1] / "c" / "stream.c"
SIZE = 64  # of a frame, from the destination MAC to the end of the payload
GRACE_S = 30.0
_NO_OPERATION = b"\x01\x01\x01\x00"  # RFC 791: three, and the end of the list


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Frames of one flow, from one VM to another.

    Attributes:
        name: for people.
        sender, receiver: (MAC, IPv4 address).
        source: where it is sent, as `c/stream.c` takes it: `tap:FD` or `packet:IFNAME`.
        vid: of a tag in the frame.
        options: the IPv4 header has some, which XDP leaves to tc.
        tunnel: in which it is sent; None: as it is.
    """

    name: str
    sender: tuple[str, str]
    receiver: tuple[str, str]
    source: str
    vid: int | None = None
    options: bool = False
    tunnel: Tunnel | None = None

    @property
    def word(self) -> str:
        """On the sender's command line."""
        frame = self.frame()
        return f"{self.source}:{for_end(self.source, self.tunnel.packet(frame) if self.tunnel else frame)}"

    def frame(self) -> bytes:
        """One of them; the process puts its number in."""
        options = _NO_OPERATION if self.options else b""
        tags = () if self.vid is None else ((0x8100, self.vid),)
        length = SIZE - 14 - 4 * len(tags)
        size = length - 20 - len(options)
        ends = b"".join(ipaddress.IPv4Address(address).packed for _, address in (self.sender, self.receiver))
        first = 0x45 + len(options) // 4
        head = struct.pack("!BBHHHBBH", first, 0, length, 0, 0x4000, 64, PROTOCOL_UDP, 0) + ends + options
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        # Without a checksum (RFC 768), for the number changes.
        datagram = struct.pack("!HHHH", SOURCE_PORT, DISCARD, size, 0) + bytes(size - 8)
        return ethernet(self.receiver[0], self.sender[0], IPV4, head + datagram, tags=tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A receiver.

    Attributes:
        where: `tap:FD` or `packet:IFNAME`.
        streams: the numbers of those that are for it.
        hello: a frame that it sends each second, so that the switch goes on knowing where it is; b"": none.
        vid: of the tag that frames have there, a tap; None: they have none.
    """

    where: str
    streams: Sequence[int]
    hello: bytes = b""
    vid: int | None = None

    @property
    def word(self) -> str:
        """On the receiver's command line."""
        numbers = ",".join(map(str, self.streams))
        greeting = for_end(self.where, self.hello) if self.hello else ""
        return f"{self.where}:{numbers}:{greeting}" + ("" if self.vid is None else f":{self.vid}")


def for_end(where: str, frame: bytes) -> str:
    """A frame as hex, behind a struct virtio_net_hdr for a tap."""
    return (NO_HEADER + frame if where.startswith("tap") else frame).hex()


class Streams:
    """Streams that can be run, again and again.

    Args:
        directory: where the program is compiled into.
        namespace: of the devices of packet ends.
        streams, ends: what is sent, and who counts it.
        rate: frames in a second, all streams together.

    Raises:
        HostError: there is no C compiler, or only one CPU.
    """

    def __init__(
        self, directory: Path, namespace: Namespace, streams: Sequence[Stream], ends: Sequence[End], rate: int
    ) -> None:
        self.names = [stream.name for stream in streams]
        self._program = str(compiled(SOURCE, directory))
        self._sender_cpu, self._receiver_cpu = two_cpus()
        self._namespace = namespace
        self._streams = streams
        self._ends = ends
        self._rate = rate

    @contextmanager
    def running(self) -> Iterator[Run]:
        """Send and count; both processes are gone afterwards, ended or not. Raises HostError: one failed."""
        run = self.start()
        try:
            yield run
        finally:
            run.kill()

    def start(self) -> Run:
        """Send and count from now on, until somebody ends it.

        Raises:
            HostError: a process failed.
        """
        run = str(secrets.randbits(31))
        receiver = self._process(
            self._receiver_cpu, "take", run, str(len(self._streams)), *(e.word for e in self._ends)
        )
        try:
            _wait_ready(receiver)
            words = [stream.word for stream in self._streams]
            started = Run(self._process(self._sender_cpu, "send", run, str(self._rate), *words), receiver)
        except BaseException:
            kill(receiver)
            raise
        try:
            _wait_ready(started.sender)
        except BaseException:
            started.kill()
            raise
        return started

    def _process(self, cpu: int, *words: str) -> subprocess.Popen[str]:
        places = [one.source for one in self._streams] + [end.where for end in self._ends]
        fds = {int(place.split(":")[1]) for place in places if place.startswith("tap")}
        command = [self._program, str(cpu), *words]
        return self._namespace.start(
            *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=tuple(sorted(fds))
        )


class Run:
    """Streams that are being sent.

    Attributes:
        sender: the process.
    """

    def __init__(self, sender: subprocess.Popen[str], receiver: subprocess.Popen[str]) -> None:
        self.sender = sender
        self._receiver = receiver

    def end(self) -> tuple[Sent, Taken]:
        """Send no more, let arrive what is on its way, count.

        Returns:
            Without the overflow of taps, of which only the devices know.

        Raises:
            HostError: a process failed.
        """
        try:
            self.sender.terminate()
            sent = _last_line(self.sender)
            self._receiver.terminate()
            taken = _last_line(self._receiver)
        finally:
            self.kill()
        received, duplicated, reordered = zip(*taken["streams"], strict=True)
        frames, refused = zip(*sent["streams"], strict=True)
        return Sent(frames=frames, refused=refused, ns=sent["ns"], realtime=sent["realtime"]), Taken(
            received=received,
            duplicated=duplicated,
            reordered=reordered,
            astray=taken["astray"],
            overflow=taken["dropped"],
            realtime=taken["realtime"],
        )

    def kill(self) -> None:
        """End both processes, whatever they do."""
        kill(self.sender)
        kill(self._receiver)


def _wait_ready(process: subprocess.Popen[str]) -> None:
    """Raises HostError: it ended instead."""
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        _last_line(process)  # raises what it said


def _last_line(process: subprocess.Popen[str]) -> Any:
    try:
        said, errors = process.communicate(timeout=GRACE_S)
    except subprocess.TimeoutExpired as exc:
        raise HostError(f"`stream` has not ended after {GRACE_S:.0f} s") from exc
    if process.returncode != 0 or not said:
        raise HostError(f"`stream` failed: {errors.strip() or process.returncode}")
    return json.loads(said.splitlines()[-1])


def kill(process: subprocess.Popen[str]) -> None:
    """End a process; it may have ended already."""
    process.kill()
    process.communicate()
