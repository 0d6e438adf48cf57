"""An agent put together: its directories, its namespace and its adapters."""

from __future__ import annotations

import asyncio
import faulthandler
import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path

from vxagent.datapath.bpf_datapath import BpfDatapath
from vxagent.datapath.maps import DEFAULT_SIZES, Sizes
from vxagent.netlink.links import NetlinkLinks
from vxagent.runtime import host
from vxagent.runtime.config import load_config
from vxagent.runtime.loop import Agent
from vxagent.runtime.peers import socket_group
from vxagent.runtime.rundir import DEFAULT_STATE_DIR, Options, RunDir, Started, claim_state_dir
from vxagent.runtime.serve import serve
from vxagent.runtime.takeoff import take_off
from vxagent.store.local import LocalStore


def live(options: Options, ready: Callable[[], None]) -> None:
    """Be an agent until somebody ends it.

    Args:
        options: who it is.
        ready: called once it forwards and answers.

    Raises:
        VxagentError: it did not start.
    """
    faulthandler.enable()  # by SIGABRT a watchdog ends what hangs: then the log says where each thread was
    host.save_memory()
    host.allow_descriptors()
    host.check_host()
    config = load_config(options.config)
    gid = socket_group(config.group)
    run_dir = RunDir(options.run_dir.absolute())
    state_dir = (options.state_dir or DEFAULT_STATE_DIR).absolute()
    run_dir.make()
    with ExitStack() as held:
        held.enter_context(run_dir.lock())
        held.enter_context(claim_state_dir(state_dir))
        # Metrics are asked for from where the caller is, not from where the switch is.
        metrics = host.listen_tcp(*config.metrics_listen) if config.metrics_listen is not None else None
        if metrics is not None:
            held.enter_context(metrics)
        netns = None if options.netns is None else host.netns_path(options.netns)
        if netns is not None:
            host.enter_netns(netns)
        host.check_same_netns(run_dir.recall())
        store = LocalStore(state_dir)
        run_dir.remember(_started(options, state_dir, netns))
        links, datapath = _adapters(run_dir, state_dir, Sizes(fdb=config.fdb_entries))
        agent = Agent(
            datapath=datapath,
            links=links,
            store=store,
            config=config,
            read_config=lambda: load_config(options.config),
            boot=_life(state_dir),
        )
        asyncio.run(serve(agent, lambda: host.listen_unix(run_dir.api, gid), metrics, ready, gid=gid))
        run_dir.api.unlink(missing_ok=True)
        if agent.taken_off:
            run_dir.forget()


def take_away(options: Options) -> None:
    """Take away the switch that an agent left.

    Raises:
        Refused: the agent lives, or it ran in another network namespace than the caller is in.
        VxagentError: something could not be taken off.
    """
    host.check_host()
    run_dir = RunDir(options.run_dir.absolute())
    run_dir.make()
    with run_dir.lock():
        started = run_dir.recall()
        state_dir = options.state_dir or Path(started.state_dir if started is not None else DEFAULT_STATE_DIR)
        with claim_state_dir(state_dir), closing(LocalStore(state_dir)) as store:
            devices_are_here = host.go_back(started)
            links, datapath = _adapters(run_dir, state_dir)
            with closing(links):
                take_off(store, datapath, links if devices_are_here else None)
        run_dir.forget()


def _adapters(run_dir: RunDir, state_dir: Path, sizes: Sizes = DEFAULT_SIZES) -> tuple[NetlinkLinks, BpfDatapath]:
    """The adapters to the kernel, for the namespace that this process is in."""
    links = NetlinkLinks()
    return links, BpfDatapath(run_dir.pins, state_dir / "bytecode", sizes=sizes, clsact=links)


def _life(state_dir: Path) -> str:
    """Which of its lives the machine is in, and which of its agents this is."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{hashlib.sha256(bytes(state_dir)).hexdigest()[:12]}"


def _started(options: Options, state_dir: Path, netns: Path | None) -> Started:
    return Started(
        pid=os.getpid(),
        version=version("vxagent"),
        netns=None if netns is None else str(netns),
        netns_id=host.netns_id(),
        state_dir=str(state_dir),
        config=None if options.config is None else str(options.config.absolute()),
    )
