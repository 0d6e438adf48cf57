"""Where bytecode comes from: shipped, cached, compiled. A stand-in for the compiler counts its calls."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vxagent.datapath import bytecode, compiler, maps, programs, source, toolchain
from vxagent.datapath.bytecode import Bytecode
from vxagent.errors import HostError, Invalid

NAMES = ("one", "two")
CODE = Bytecode(programs={"one": bytes(8), "two": bytes(range(16))}, bcc="0.26.0", llvm="14")


class Compiler:
    """Stands in for the child. `calls` counts; `fails` is raised."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails: Exception | None = None

    def __call__(self, main: Path, directory: Path, flags: tuple[str, ...], names: tuple[str, ...]) -> Bytecode:
        self.calls += 1
        if self.fails is not None:
            raise self.fails
        return CODE


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    stand_in = Compiler()
    monkeypatch.setattr(toolchain, "compile_programs", stand_in)
    monkeypatch.setattr(toolchain, "bcc_version", lambda: "0.26.0")
    return stand_in


@pytest.fixture
def sources(tmp_path: Path) -> source.Source:
    directory = tmp_path / "bpf"
    (directory / "shim").mkdir(parents=True)
    (directory / "main.c").write_text("int one;\n")
    (directory / "stage.h").write_text("/* a stage */\n")
    return source.Source(main=directory / "main.c", directory=directory, flags=("-DFD_a=1",), programs=NAMES)


def test_what_was_compiled_is_cached(tmp_path: Path, sources: source.Source, child: Compiler) -> None:
    cache, nowhere = tmp_path / "cache", tmp_path / "nowhere"
    first = source.load(cache, sources, shipped=nowhere)
    second = source.load(cache, sources, shipped=nowhere)
    assert (first, second, child.calls) == (CODE, CODE, 1)


@pytest.mark.parametrize("file", ["main.c", "stage.h"])
def test_a_changed_file_is_compiled_anew(file: str, tmp_path: Path, sources: source.Source, child: Compiler) -> None:
    source.load(tmp_path / "cache", sources, shipped=tmp_path / "nowhere")
    (sources.directory / file).write_text("/* changed */\n")
    source.load(tmp_path / "cache", sources, shipped=tmp_path / "nowhere")
    assert child.calls == 2


def test_other_flags_are_another_program(sources: source.Source) -> None:
    other = source.Source(
        main=sources.main, directory=sources.directory, flags=("-DFD_a=2",), programs=sources.programs
    )
    assert other.digest() != sources.digest()


def test_another_bcc_compiles_anew(
    tmp_path: Path, sources: source.Source, child: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.load(tmp_path / "cache", sources, shipped=tmp_path / "nowhere")
    monkeypatch.setattr(toolchain, "bcc_version", lambda: "0.31.0")
    source.load(tmp_path / "cache", sources, shipped=tmp_path / "nowhere")
    assert child.calls == 2


def test_shipped_bytecode_needs_no_bcc(
    tmp_path: Path, sources: source.Source, child: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise HostError("BCC is not installed")

    monkeypatch.setattr(toolchain, "bcc_version", missing)
    shipped = tmp_path / "shipped.json"
    bytecode.write(shipped, sources.digest(), CODE)
    assert source.load(tmp_path / "cache", sources, shipped=shipped) == CODE
    assert child.calls == 0


def test_shipped_bytecode_of_other_sources_is_not_used(tmp_path: Path, sources: source.Source, child: Compiler) -> None:
    shipped = tmp_path / "shipped.json"
    bytecode.write(shipped, "0" * 64, CODE)
    source.load(tmp_path / "cache", sources, shipped=shipped)
    assert child.calls == 1


def _flip_a_bit(text: str) -> str:
    document = json.loads(text)
    document["programs"]["one"] = "AQAAAAAAAAA="
    return json.dumps(document)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda _: "[]",
        lambda _: "{}",
        lambda text: text.replace('"one"', '"uno"'),
        lambda text: text.replace("AAAA", "?", 1),
        _flip_a_bit,
    ],
    ids=["cut", "empty", "list", "no keys", "other name", "no base64", "flipped bit"],
)
def test_a_damaged_cache_file_is_compiled_anew(
    damage: object, tmp_path: Path, sources: source.Source, child: Compiler, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    cache, nowhere = tmp_path / "cache", tmp_path / "nowhere"
    source.load(cache, sources, shipped=nowhere)
    (file,) = cache.iterdir()
    file.write_text(damage(file.read_text()))
    with caplog.at_level(logging.WARNING):
        assert source.load(cache, sources, shipped=nowhere) == CODE
    assert f"not using the bytecode in {file}" in caplog.text
    assert child.calls == 2
    assert source.load(cache, sources, shipped=nowhere) == CODE
    assert child.calls == 2


def test_a_cache_that_cannot_be_written_is_no_failure(
    tmp_path: Path, sources: source.Source, child: Compiler, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert source.load(blocked / "cache", sources, shipped=tmp_path / "nowhere") == CODE
    assert "cannot keep bytecode" in caplog.text


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "code.json"
    bytecode.write(path, "old", CODE)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="No space left"):
        bytecode.write(path, "new", CODE)
    assert bytecode.read(path, "old") == CODE
    assert list(tmp_path.iterdir()) == [path]


def test_without_bytecode_and_bcc_it_says_what_to_install(
    tmp_path: Path, sources: source.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "_VERSION_FILES", ("nowhere/at/all.py",))
    with pytest.raises(HostError, match="BCC is not installed; install BCC: apt-get install python3-bpfcc"):
        source.load(tmp_path / "cache", sources, shipped=tmp_path / "nowhere")


def _pretend_version(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "version.py"
    file.write_text(f"__version__ = '{text}'\n")
    monkeypatch.setattr(toolchain, "_VERSION_FILES", (str(file.relative_to("/")),))


def test_the_bcc_version_is_read_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_version("0.31.0", tmp_path, monkeypatch)
    assert toolchain.bcc_version() == "0.31.0"
    assert "bcc" not in sys.modules


def test_a_bcc_below_the_floor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_version("0.18.0", tmp_path, monkeypatch)
    with pytest.raises(HostError, match=r"BCC 0\.18\.0 is too old; vxagent needs 0\.26 or newer"):
        toolchain.bcc_version()


def _pretend_child(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run this shell script as the system's Python."""
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(toolchain, "SYSTEM_PYTHON", python)


def _compile(sources: source.Source) -> Bytecode:
    return toolchain.compile_programs(sources.main, sources.directory, sources.flags, sources.programs)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo '/virtual/main.c:3:1: error: expected }' >&2; echo '1 error generated.' >&2; exit 1",
            "cannot compile main.c: main.c:3:1: error: expected } (exit status 1)",
        ),
        (
            "echo 'LLVM ERROR: Cannot select: sdiv' >&2; kill -ABRT $$",
            "cannot compile main.c: LLVM ERROR: Cannot select: sdiv (the compiler died of SIGABRT)",
        ),
        (
            "echo \"linux/types.h:1: fatal error: 'asm/types.h' file not found\" >&2; exit 1",
            "file not found (exit status 1); install the kernel's UAPI headers: apt-get install linux-libc-dev",
        ),
        ("exit 9", "cannot compile main.c: exit status 9"),
        (
            f"echo \"No module named 'bcc'\" >&2; exit {compiler.EXIT_NO_BCC}",
            "cannot import bcc: No module named 'bcc'; install BCC: apt-get install python3-bpfcc",
        ),
    ],
    ids=["C error", "LLVM abort", "no headers", "silent", "no bcc"],
)
def test_a_child_that_fails_is_one_clear_line(
    script: str, message: str, tmp_path: Path, sources: source.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_child(script, tmp_path, monkeypatch)
    with pytest.raises(HostError) as raised:
        _compile(sources)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_compile_error_keeps_all_that_was_said(
    tmp_path: Path, sources: source.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_child("echo first >&2; echo second >&2; exit 1", tmp_path, monkeypatch)
    with pytest.raises(toolchain.CompileError) as raised:
        _compile(sources)
    assert raised.value.output == "first\nsecond\n"


def test_a_system_without_python_says_what_to_install(
    tmp_path: Path, sources: source.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "SYSTEM_PYTHON", tmp_path / "none")
    with pytest.raises(HostError, match="install BCC"):
        _compile(sources)


def test_every_map_has_a_sentinel_of_its_own() -> None:
    numbers = maps.sentinels(["a_test_map"])
    assert set(numbers) == {*maps.declare(maps.DEFAULT_SIZES), maps.PROGS, "a_test_map"}
    assert len(set(numbers.values())) == len(numbers)


def test_the_switch_is_compiled_with_a_macro_for_every_map() -> None:
    switch = source.switch()
    assert set(switch.programs) == {spec.name for spec in programs.PROGRAMS}
    assert {flag.split("=")[0] for flag in switch.flags} == {f"-DFD_{name}" for name in maps.sentinels()}


def test_the_compiler_child_stands_alone() -> None:
    """It runs under the system's Python, which has no vxagent; without a request it fails, but imports."""
    code = f"import runpy; runpy.run_path({compiler.__file__!r})"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, env={"PATH": os.environ["PATH"]})


def test_building_takes_a_directory_or_nothing() -> None:
    assert source.main(["build", "one", "two"]) == 2
    assert source.main([]) == 2


@pytest.mark.parametrize(
    ("name", "value"), [("fdb", 0), ("ports", 65537), ("segments", -1), ("events", 4097), ("events", 12288)]
)
def test_sizes_that_can_never_be_right_are_refused(name: str, value: int) -> None:
    with pytest.raises(Invalid, match=name):
        maps.Sizes(**{name: value})
