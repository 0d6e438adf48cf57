"""Agents and command lines of users who are not root."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from vxagent.datapath.bpf import missing_capabilities
from vxagent.lab.agent import VXAGENT, Agent
from vxagent.lab.namespaces import Namespace, run

AGENT_UID = 61234
SOMEBODY_UID = 61235
"""Users that no machine has."""

NEEDED = tuple(name.removeprefix("CAP_").lower() for name in missing_capabilities("CapEff:\t0"))


def as_user(uid: int, *capabilities: str, groups: tuple[int, ...] = ()) -> tuple[str, ...]:
    """Stand before a command: it runs as this user and in the group of the same number, with these capabilities alone.

    Where the tree is root's alone, it gets CAP_DAC_READ_SEARCH as well, to read it: that is not what tests are about.
    """
    more = (*capabilities, *(() if _may_read_the_tree() else ("dac_read_search",)))
    allowed = ",".join(["-all", *(f"+{name}" for name in more)])
    others = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return (
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", others, "--no-new-privs"),
        *(f"--inh-caps={allowed}", f"--ambient-caps={allowed}", f"--bounding-set={allowed}"),
    )


@cache
def _may_read_the_tree() -> bool:
    plain = ("setpriv", f"--reuid={SOMEBODY_UID}", f"--regid={SOMEBODY_UID}", "--clear-groups")
    return run(*plain, VXAGENT, "--help", check=False).returncode == 0


class UserAgent(Agent):
    """An agent that runs as AGENT_UID with the capabilities that it needs; directories and bpffs are of root's making.

    Args:
        directory, netns, config: as of Agent.
        capabilities: what it gets beyond.
    """

    def __init__(self, directory: Path, netns: Namespace, *, config: str = "", capabilities: tuple[str, ...] = ()):
        super().__init__(directory, netns, config=config)
        self._user = as_user(AGENT_UID, *NEEDED, *capabilities)
        self._netns = ("--netns", netns.name) if "sys_admin" in capabilities else ()
        directory.chmod(0o755)
        pins = self.run_dir / "bpf"
        for made in (self.run_dir, self.state_dir, pins):
            made.mkdir()
        run("mount", "-t", "bpf", "-o", "mode=0700", "bpf", str(pins))
        for made in (self.run_dir, self.state_dir, pins):
            os.chown(made, AGENT_UID, AGENT_UID)

    def up(self) -> None:
        """Start it as that user, in the switch's namespace unless it may enter that itself. Raises CommandFailed."""
        command = (*self._user, VXAGENT, "--run-dir", str(self.run_dir), "up", "--detach", *self._netns)
        options = ("--state-dir", str(self.state_dir), "--config", str(self.config_file))
        if self._netns:
            run(*command, *options)
        else:
            self.netns.run(*command, *options)

    def status(self) -> dict[str, str]:
        """What /proc says of its process: name of the line → text."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def ask_as(user: tuple[str, ...], agent: Agent, *words: str) -> subprocess.CompletedProcess[str]:
    """`vxagent words` of that agent, as a user."""
    return run(*user, VXAGENT, "--run-dir", str(agent.run_dir), *words, check=False)
