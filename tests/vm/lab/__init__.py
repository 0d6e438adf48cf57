"""Real guests for tests, by QEMU: `tests/vm/README.md` says how to use them.

Nothing here skips a test or makes one wait longer than it says. What a guest is made of (kernels, images, wheels) comes
from Debian's and Python's package archives, as this machine is set up to reach them, and is kept in a cache.
"""
