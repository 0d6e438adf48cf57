"""Hosts whose engine takes nobody without a certificate, each with one of its own.

host 1      host 2      host 3
  └───────────┴───────────┴──── etcd0, by TLS, at 192.0.2.200 on the underlay
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from support.certificates import Authority
from support.fleet import Host
from support.lan import clean_world
from support.quorum import Quorum
from vxagent.store.engine import Credentials


class Sealed(Quorum):
    """Hosts that know each other by an engine with TLS.

    Attributes:
        authority: whom the engine and the hosts trust.
    """

    members = 1
    tls = True
    authority: Authority

    def share_engine(self) -> None:
        """It serves, and knows no host yet."""
        super().share_engine()
        assert self.nodes.authority is not None
        self.authority = self.nodes.authority

    def config(self, number: int, **others: str) -> str:
        """The vxagent.toml of a host, with a certificate that is made for it."""
        return super().config(number, **others) + lines(self.authority.client(f"host{number}"))

    def start_with(self, host: Host, credentials: Credentials) -> None:
        """Its agent, if there is one, ends, and the next one has these; it forwards when this returns."""
        host.agent.cli("stop", check=False)
        host.agent.config_file.write_text(super().config(host.number) + lines(credentials))
        host.agent.up()


def lines(credentials: Credentials) -> str:
    """Of [cluster]."""
    files = {"ca": credentials.ca, "cert": credentials.cert, "key": credentials.key}
    return "".join(f'{name} = "{file}"\n' for name, file in files.items() if file is not None)


@contextmanager
def running_sealed(count: int = 3) -> Iterator[Sealed]:
    """In a world of its own."""
    with clean_world() as world:
        yield Sealed(world, count)
