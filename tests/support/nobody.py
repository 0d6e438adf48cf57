"""Commands run as a user who is nobody special, and who can read a tree that only root can read: a clone's
directory may be root's alone, and that is not what these tests are about."""

from __future__ import annotations

UID = 65534
"""nobody's, on Debian."""

AS_NOBODY = (
    "setpriv",
    f"--reuid={UID}",
    f"--regid={UID}",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)
"""To stand before a command. capabilities(7): CAP_DAC_READ_SEARCH lets read, not write."""
