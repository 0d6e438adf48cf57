"""A process of simulated hosts, told what to do by lines of JSON: `python -m support.swarm_process`, by `Swarms`.

→ {"layout": {…}, "numbers": [0, 1 …], "endpoints": […], "cluster": "…", "others": 0}     first
→ {"do": "change", "rate": 25.0, "seconds": 10.0}     then one after the other
← {…}                                                 each is answered
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict
from random import Random
from typing import Any

from support.spread import Spread
from support.swarm import Heard, SimulatedHost, Swarm
from support.swarm_layout import Layout
from vxagent.errors import VxagentError

SHOWN = 5  # mistakes


class Changing:
    """Ports that come to hosts and go again, half of each, at a rate that does not wait for what was asked before.

    Attributes:
        asked: from when a port was due until the engine had granted it.
        done, late: changes that were made while it was measured, and after.
        failed: by the error's name.
        bound: ports that came, and how many other hosts are to hear of each.
    """

    def __init__(self, swarm: Swarm, rate: float, seconds: float) -> None:
        self.asked = Spread()
        self.done = self.late = 0
        self.failed: Counter[str] = Counter()
        self.bound: dict[str, int] = {}
        self._swarm = swarm
        self._rate = rate
        self._seconds = seconds
        self._random = Random(0)
        self._there: deque[tuple[SimulatedHost, str]] = deque()
        self._numbers: Counter[int] = Counter()
        self._end = 0.0

    async def run(self) -> None:
        """To the end of all of them."""
        begun = time.monotonic()
        self._end = begun + self._seconds
        tasks = []
        for count in range(int(self._rate * self._seconds)):
            due = begun + (count + self._random.random()) / self._rate  # of many processes, not all at once
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(self._one(count, due)))
        await asyncio.gather(*tasks)

    async def tidy(self) -> None:
        """Take away all that is left."""
        while self._there:
            host, port = self._there.popleft()
            try:
                await host.detach(port)
            except VxagentError:
                self._there.append((host, port))
                await asyncio.sleep(0.1)

    async def _one(self, count: int, due: float) -> None:
        try:
            if count % 2 and self._there:
                host, port = self._there.popleft()
                await host.detach(port)
            else:
                await self._come(due)
        except VxagentError as error:
            self.failed[type(error).__name__] += 1
        else:
            in_time = time.monotonic() <= self._end
            self.done += in_time
            self.late += not in_time

    async def _come(self, due: float) -> None:
        host = self._random.choice(self._swarm.hosts)
        layout = self._swarm.layout
        self._numbers[host.number] += 1
        segment = self._random.choice(layout.segments_of(host.number))
        port = layout.new_port(host.number, self._numbers[host.number], segment, int(due * 1e6))
        await host.attach(port)
        self.asked.add((time.monotonic() - due) * 1e6)
        self.bound[port.id] = len(layout.members[segment]) - 1
        self._there.append((host, port.id))


class Child:
    """This process's side."""

    def __init__(self, swarm: Swarm, said: Counter[str]) -> None:
        self._swarm = swarm
        self._changing = Changing(swarm, 1, 0)
        self._said = said

    async def do(self, what: str, asked: dict[str, Any]) -> dict[str, Any]:
        """What is asked for."""
        return await getattr(self, f"_{what}")(**asked)  # type: ignore[no-any-return]

    async def _start(self) -> dict[str, Any]:
        await self._swarm.start()
        return {}

    async def _restart(self) -> dict[str, Any]:
        await self._swarm.restart()
        return {}

    async def _converge(self, within_s: float) -> dict[str, Any]:
        ready_at = await self._swarm.converge(within_s)
        gc.collect()
        gc.freeze()
        return {"ready_at": ready_at}

    async def _change(self, rate: float, seconds: float) -> dict[str, Any]:
        self._swarm.heard.told, self._swarm.heard.last = Spread(), {}
        changing = self._changing = Changing(self._swarm, rate, seconds)
        await changing.run()
        return {
            "asked": changing.asked.counts(),
            "done": changing.done,
            "late": changing.late,
            "failed": dict(changing.failed),
            "to_hear": sum(changing.bound.values()),
        }

    async def _heard(self) -> dict[str, Any]:
        heard: Heard = self._swarm.heard
        return {"told": heard.told.counts(), "last": heard.last}

    async def _tidy(self) -> dict[str, Any]:
        await self._changing.tidy()
        return {}

    async def _check(self) -> dict[str, Any]:
        mistakes = await asyncio.to_thread(self._swarm.mistakes)
        return {"mistakes": len(mistakes), "shown": mistakes[:SHOWN]}

    async def _used(self) -> dict[str, Any]:
        use = resource.getrusage(resource.RUSAGE_SELF)
        return {"cpu_s": use.ru_utime + use.ru_stime, "rss": use.ru_maxrss * 1024, "said": dict(self._said)}

    async def _end(self) -> dict[str, Any]:
        await self._swarm.end()
        return {}


class Counting(logging.Handler):
    """Counts what hosts have to say, by what all of them would say."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count it."""
        self.said[re.sub(r"sim\d+", "simN", record.getMessage())] += 1


async def main() -> None:
    """Until the other side closes, or says end."""
    gc.disable()  # of millions of records that stay; what goes in circles is little
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def say(what: object) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    setup = json.loads(await reader.readline())
    layout = Layout(**setup.pop("layout"))
    counting = Counting()
    logging.getLogger("vxagent").addHandler(counting)
    child = Child(Swarm(layout, **setup), counting.said)
    say({})
    while line := await reader.readline():
        asked = json.loads(line)
        say(await child.do(asked.pop("do"), asked))


def setup_line(layout: Layout, numbers: Iterable[int], **more: object) -> str:
    """The first line."""
    return json.dumps({"layout": asdict(layout), "numbers": list(numbers), **more}) + "\n"


if __name__ == "__main__":
    asyncio.run(main())
