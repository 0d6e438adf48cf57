"""How people and scripts are told of what has a handle like a port: a port or a device by name, a VTEP by address."""

from __future__ import annotations

from dataclasses import dataclass

from vxagent.core.numbers import UNDERLAY, VTEP
from vxagent.core.state import State


@dataclass(frozen=True, slots=True)
class Named:
    """`port`, a port id or the device of an uplink or the underlay, or `vtep`, an address; neither: nobody has the
    handle."""

    port: str | None = None
    vtep: str | None = None

    def __str__(self) -> str:
        """As sentences have it."""
        return self.short if self.vtep is not None else f"port {self.short}"

    @property
    def short(self) -> str:
        """The same where it is clear that ports are meant."""
        return f"VTEP {self.vtep}" if self.vtep is not None else self.port or "?"


NOBODY = Named()


def named(owner: str) -> Named:
    """The name of an owner in the space "port"."""
    if owner.startswith(VTEP):
        return Named(vtep=owner.removeprefix(VTEP))
    return Named(port=owner.removeprefix(UNDERLAY))


def by_handle(state: State) -> dict[int, Named]:
    """Handle → who has it."""
    return {handle: named(owner) for handle, owner in state.names("port").items()}
