"""What all tests share: those on devices and programs are skipped where nobody may make them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NEED_ROOT = {"bpf", "netns", "vm"}
TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if NEED_ROOT & set(item.path.relative_to(TESTS).parts):
            item.add_marker(pytest.mark.skip(reason="needs root"))
