"""The engine of many hosts: etcd 3.4 or later, by gRPC. The extra `cluster` brings what is imported here.

A channel for each member instead of one for all: a certificate is held against the name of its own member, and a member
that hangs is passed over when we say so. What the defaults of gRPC would do to us, all seen with etcd 3.4:

- A member that stands still is noticed by pings after 65 s; with a `ping_timeout_ms` of 3 s, within 10.
- Pings without calls, or more often than every 5 s, make etcd hang up (GOAWAY, too_many_pings).
- A watch at a member without a leader stays open and silent; with `hasleader` it ends, and calls are refused at once.
- A call without deadline waits for ever; messages over 4 MiB are refused; a proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # our children exec at once: nothing of gRPC lives on in them

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what fails is told by us, once

import grpc
import grpc.aio

from vxagent import steps
from vxagent.errors import ClusterAmbiguous, ClusterAway, ClusterRefused, Compacted, HostError
from vxagent.store.engine import Credentials
from vxagent.store.etcd_errors import Fate, LeaseGone, fate_of, reason_of, refusal_of
from vxagent.store.etcd_messages import compare_message, event_of, key_bytes, key_value, message, op_message
from vxagent.store.kv import Get, KeyValue, Range, RangeResult, Txn, TxnResult, Watch, WatchBatch

PAGES = 3  # times as long as for another answer: a page has 2 MB
PAUSE_S = 0.1  # before the first member is asked again
PAGE = 10_000  # keys in one answer

_OPTIONS = (
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),  # for a quiet watch, too
    ("grpc.max_receive_message_length", 128 << 20),  # 10,000 keys of 10 kB each
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # nobody else's connection, and none after `close`
)
_CLOSED = "this host has let go of it"
_LEADER = (("hasleader", "true"),)

_KV = "/etcdserverpb.KV/"
_LEASE = "/etcdserverpb.Lease/"
_WATCH = "/etcdserverpb.Watch/Watch"


_SETTLED = {
    grpc.ChannelConnectivity.READY,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
    grpc.ChannelConnectivity.SHUTDOWN,
}


class EtcdKv:
    """`store.kv.Kv` by etcd. It belongs to the event loop in which it was made.

    Args:
        endpoints: one URL for each member, `http` or `https`.
        patience_s, attempt_s: as of `engine.connect`.

    Attributes:
        endpoints: in the order in which they are asked.

    Raises:
        HostError: a file of the credentials cannot be read.
    """

    def __init__(self, endpoints: Sequence[str], credentials: Credentials, patience_s: float, attempt_s: float) -> None:
        self._patience_s = patience_s
        self._attempt_s = attempt_s
        self.endpoints = tuple(endpoints)
        tls = _tls(credentials) if endpoints[0].startswith("https:") else None
        self._channels = [_channel(urlsplit(endpoint).netloc, tls) for endpoint in endpoints]
        self._at = 0  # the member that answered last
        self._closed = False

    async def range(self, asked: Range, revision: int = 0) -> RangeResult:
        """The keys, page by page at one revision."""
        request = message("RangeRequest")(
            key=key_bytes(asked.key), range_end=key_bytes(asked.end), limit=PAGE, revision=revision
        )
        found: list[KeyValue] = []
        while True:
            answer = await self._call(f"{_KV}Range", request, "RangeResponse", within=PAGES * self._attempt_s)
            found += [key_value(kv) for kv in answer.kvs]
            request.revision = request.revision or answer.header.revision
            if not answer.more:
                return RangeResult(revision=answer.header.revision, found=tuple(found))
            request.key = answer.kvs[-1].key + b"\0"

    async def txn(self, txn: Txn) -> TxnResult:
        """Do one of the two branches."""
        request = message("TxnRequest")(
            compare=[compare_message(compare) for compare in txn.compares],
            success=[op_message(op) for op in txn.success],
            failure=[op_message(op) for op in txn.failure],
        )
        changes = any(not isinstance(op, Get) for op in (*txn.success, *txn.failure))
        answer = await self._call(f"{_KV}Txn", request, "TxnResponse", changes=changes)
        if changes:
            steps.taken()
        found = tuple(
            tuple(key_value(kv) for kv in response.response_range.kvs)
            for response in answer.responses
            if response.HasField("response_range")
        )
        return TxnResult(succeeded=answer.succeeded, revision=answer.header.revision, found=found)

    async def watch(self, first: Range) -> Watch:
        """Begin to watch, at a member that answers."""
        away = self.away("no member answers")
        for _ in self._channels:
            channel = self._member()
            if await self._connected(channel) and not self._closed:
                watch = _EtcdWatch(self, channel)
                try:
                    async with asyncio.timeout(self._attempt_s):
                        await watch.begin(first)
                except (TimeoutError, ClusterAway) as error:
                    away = error if isinstance(error, ClusterAway) else away
                    await watch.close()
                else:
                    return watch
            self.pass_over(channel)
        raise away

    async def grant(self, ttl_s: int) -> int:
        """A new lease. One whose answer did not come runs out by itself."""
        request = message("LeaseGrantRequest")(TTL=ttl_s)
        answer = await self._call(f"{_LEASE}LeaseGrant", request, "LeaseGrantResponse", changes=True)
        return int(answer.ID)

    async def keepalive(self, lease: int) -> int:
        """Keep it alive; a call for each, for there is one in seconds."""
        request = message("LeaseKeepAliveRequest")(ID=lease)
        answer = await self._call(f"{_LEASE}LeaseKeepAlive", request, "LeaseKeepAliveResponse", streams=True)
        return int(answer.TTL)

    async def revoke(self, lease: int) -> None:
        """End it."""
        request = message("LeaseRevokeRequest")(ID=lease)
        try:
            await self._call(f"{_LEASE}LeaseRevoke", request, "LeaseRevokeResponse", changes=True)
        except LeaseGone:
            return

    async def close(self) -> None:
        """Let go of the connections."""
        self._closed = True
        for channel in self._channels:
            await channel.close()

    def _member(self) -> grpc.aio.Channel:
        if self._closed:
            raise self.away(_CLOSED)
        return self._channels[self._at]

    def pass_over(self, channel: grpc.aio.Channel) -> None:
        """Ask another member next, unless that is so already."""
        if self._channels[self._at] is channel:
            self._at = (self._at + 1) % len(self._channels)

    async def _call(
        self,
        path: str,
        request: Any,
        answer: str,
        *,
        within: float = 0.0,
        changes: bool = False,
        streams: bool = False,
    ) -> Any:
        """Ask the members one after the other, as long as it is sure that none has done it.

        Args:
            within: seconds, for each of them; 0: as for most.
            changes: it may have changed something when no answer came.
            streams: the method is one of streams; one message goes, one comes.

        Raises:
            ClusterError.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience_s
        asked = 0
        while True:
            channel = self._member()
            fate, why = Fate.NOT_DONE, f"no connection within {self._attempt_s:g} s"
            if await self._connected(channel):
                try:
                    said = await _ask(channel, path, request, answer, within or self._attempt_s, streams=streams)
                except grpc.aio.AioRpcError as error:
                    fate, why = fate_of(*_said(error)), reason_of(*_said(error))
                    if fate is Fate.REFUSED:
                        raise refusal_of(*_said(error)) from error
                except asyncio.CancelledError:
                    if _told_to_end():
                        raise
                    fate, why = Fate.UNKNOWN, _CLOSED
                else:
                    if said is not grpc.aio.EOF:
                        return said
                    why = "it ended the call"
            self.pass_over(channel)
            if fate is Fate.UNKNOWN and changes:
                raise ClusterAmbiguous(f"etcd may have done what it was asked, no answer came ({why})", "ask again")
            asked += 1
            if loop.time() + PAUSE_S >= end:
                raise self.away(why)
            if asked % len(self._channels) == 0:
                await asyncio.sleep(PAUSE_S)

    async def _connected(self, channel: grpc.aio.Channel) -> bool:
        """A call would be answered, or refused at once, with the reason; False: it would wait for a connection."""
        try:
            async with asyncio.timeout(self._attempt_s):
                while (state := channel.get_state(try_to_connect=True)) not in _SETTLED:
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        return True

    def away(self, why: str) -> ClusterAway:
        """The error."""
        mend = f"see that a majority of its members runs: {', '.join(self.endpoints)}"
        tls = self.endpoints[0].startswith("https:")
        return ClusterAway(f"etcd is away ({why})", f"{mend}, and ca, cert and key of [cluster]" if tls else mend)


class _EtcdWatch:
    """`store.kv.Watch`: one stream for all ranges. We name the watches, so that what comes late can be told apart.

    No fragments are asked for: what happened in one revision comes in one message.
    """

    def __init__(self, kv: EtcdKv, channel: grpc.aio.Channel) -> None:
        self._kv = kv
        self._channel = channel
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._ranges: dict[int, Range] = {}
        self._last = 0
        self._closed = False
        method: Any = channel.stream_stream(
            _WATCH,
            request_serializer=message("WatchRequest").SerializeToString,
            response_deserializer=message("WatchResponse").FromString,
        )
        self._call = method(self._sent(), metadata=_LEADER)

    async def begin(self, first: Range) -> None:
        """Watch this range, and wait until the member does."""
        self.add(first, 0)
        while not (await self._read()).created:
            pass

    def add(self, watched: Range, revision: int) -> None:
        """Watch it too."""
        if watched in self._ranges.values():
            return
        self._last += 1
        self._ranges[self._last] = watched
        create = message("WatchCreateRequest")(
            key=key_bytes(watched.key), range_end=key_bytes(watched.end), start_revision=revision, watch_id=self._last
        )
        self._requests.put_nowait(message("WatchRequest")(create_request=create))

    def remove(self, watched: Range) -> None:
        """Watch it no longer."""
        for number in [number for number, known in self._ranges.items() if known == watched]:
            del self._ranges[number]
            cancel = message("WatchCancelRequest")(watch_id=number)
            self._requests.put_nowait(message("WatchRequest")(cancel_request=cancel))

    async def next(self) -> WatchBatch:
        """Wait for the next batch."""
        while True:
            answer = await self._read()
            watched = self._ranges.get(answer.watch_id)
            if answer.canceled and watched is not None:
                if answer.compact_revision:
                    raise Compacted(answer.compact_revision)
                raise ClusterRefused(f"etcd ended a watch of {watched.key}: {answer.cancel_reason}")
            if watched is not None and answer.events:
                events = tuple(event_of(event) for event in answer.events)
                return WatchBatch(range=watched, revision=events[-1].kv.mod_revision, events=events)

    async def close(self) -> None:
        """Let go of the stream."""
        self._closed = True
        self._requests.put_nowait(None)  # a call that ended by itself no longer cares for who waits here
        self._call.cancel()

    async def _read(self) -> Any:
        if self._closed:
            raise self._kv.away(_CLOSED)
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if fate_of(*_said(error)) is Fate.REFUSED:
                raise refusal_of(*_said(error)) from error
            self._kv.pass_over(self._channel)
            raise self._kv.away(reason_of(*_said(error))) from error
        except asyncio.CancelledError:
            if _told_to_end():
                raise
            raise self._kv.away(_CLOSED) from None
        if answer is grpc.aio.EOF:
            self._kv.pass_over(self._channel)
            raise self._kv.away("it ended the watch")
        return answer

    async def _sent(self) -> AsyncIterator[Any]:
        while (request := await self._requests.get()) is not None:
            yield request


async def _ask(channel: grpc.aio.Channel, path: str, request: Any, answer: str, within: float, *, streams: bool) -> Any:
    """One member's answer; of a stream, the first one, or EOF."""
    make = channel.stream_stream if streams else channel.unary_unary
    method: Any = make(
        path,
        request_serializer=type(request).SerializeToString,
        response_deserializer=message(answer).FromString,
    )
    if not streams:
        return await method(request, timeout=within, metadata=_LEADER)
    call = method(timeout=within, metadata=_LEADER)
    try:
        await call.write(request)
        return await call.read()
    finally:
        call.cancel()


def _said(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """Code and details."""
    return error.code().name, error.details() or ""


def _told_to_end() -> bool:
    """This task is cancelled. gRPC says so, too, when somebody ends a call, or its channel, beneath it."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _tls(credentials: Credentials) -> grpc.ChannelCredentials:
    def read(file: Path | None) -> bytes | None:
        try:
            return None if file is None else file.read_bytes()
        except OSError as error:
            raise HostError(f"{file} cannot be read: {error.strerror}", "see ca, cert and key of [cluster]") from error

    return grpc.ssl_channel_credentials(read(credentials.ca), read(credentials.key), read(credentials.cert))


def _channel(address: str, tls: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address, _OPTIONS)
    return grpc.aio.secure_channel(address, tls, _OPTIONS)
