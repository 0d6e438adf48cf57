"""Reads a BPF ring buffer by mmap, as kernel/bpf/ringbuf.c lays it out.

    page 0             consumer position, ours to write
    page 1             producer position, the kernel's
    page 2…            the data, mapped twice in a row, so a record that wraps around reads straight on

A record is a header of two u32 (length with two flag bits, page offset) and its data, rounded up to 8.
"""

from __future__ import annotations

import mmap
import struct
import threading

from vxagent.datapath.bpf import BpfError
from vxagent.datapath.bpf_map import Map

_BUSY = 1 << 31  # reserved, not yet submitted
_DISCARD = 1 << 30
_ALL = 1 << 32  # more than any ring holds
_HEADER = struct.Struct("=II")


class RingReader:
    """Takes records out of a ring buffer map. Its methods may be called from several threads."""

    def __init__(self, ring: Map) -> None:
        """Raises BpfError: the kernel refused."""
        page, size = mmap.PAGESIZE, ring.spec.max_entries
        self._mask = size - 1
        self._lock = threading.Lock()
        try:  # each takes a descriptor of its own
            self._consumer_page = mmap.mmap(ring.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            self._producer_pages = mmap.mmap(ring.fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError as error:
            raise BpfError(f"map the ring {ring.spec.name} into memory", error.errno or 0) from error
        # as words of 8 bytes, so that a position is read and written whole
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = memoryview(self._producer_pages)[:page].cast("Q")

    def read(self, most: int = _ALL) -> list[bytes]:
        """The records that wait, oldest first, up to one that is still being written; not more than `most`."""
        records: list[bytes] = []
        with self._lock:
            at, end = self._consumer[0], self._producer[0]
            while at < end and len(records) < most:
                start = mmap.PAGESIZE + (at & self._mask)
                length, _ = _HEADER.unpack_from(self._producer_pages, start)
                if length & _BUSY:
                    break
                size = length & ~_DISCARD
                if not length & _DISCARD:
                    records.append(self._producer_pages[start + _HEADER.size : start + _HEADER.size + size])
                at += (size + _HEADER.size + 7) // 8 * 8
            self._consumer[0] = at
        return records

    def close(self) -> None:
        """Unmap it."""
        with self._lock:
            self._consumer.release()
            self._producer.release()
            self._consumer_page.close()
            self._producer_pages.close()
