"""What a script tells people: headings, findings and text; colours on a terminal only."""

from __future__ import annotations

import sys
import time
from typing import TextIO

BOLD, GREEN, RED, DIM, PLAIN = "\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m"


class Report:
    """Prints, and remembers whether all was well.

    Attributes:
        failed: how many findings were not as expected.
    """

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self.failed = 0
        self._out = out
        self._colours = out.isatty()
        self._begun = time.monotonic()

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._print("")
        self._print(self._in(BOLD, text))

    def finding(self, good: bool, text: str) -> None:
        """Something that was expected, and whether it is so."""
        self.failed += not good
        self._print(f"  {self._in(GREEN, '✓') if good else self._in(RED, '✗')} {text}")

    def text(self, text: str) -> None:
        """Lines as they are, indented."""
        for line in text.rstrip().splitlines():
            self._print(f"    {line}")

    def note(self, text: str) -> None:
        """A remark."""
        self._print(self._in(DIM, f"    {text}"))

    def end(self) -> None:
        """The last line."""
        seconds = time.monotonic() - self._begun
        self._print("")
        if self.failed:
            self._print(self._in(RED, f"{self.failed} not as expected, in {seconds:.0f} s"))
        else:
            self._print(self._in(GREEN, f"All as expected, in {seconds:.0f} s"))

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._colours else text

    def _print(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()
