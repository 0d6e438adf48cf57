"""The real compiler child: what it makes of the switch, of wrong C, and of C that LLVM gives up on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from vxagent.datapath import bytecode, maps, source, toolchain
from vxagent.datapath.bytecode import Bytecode
from vxagent.datapath.programs import PROGRAMS


@pytest.fixture(scope="module")
def built() -> Bytecode:
    switch = source.switch()
    return toolchain.compile_programs(switch.main, switch.directory, switch.flags, switch.programs)


def test_every_program_of_the_switch_is_there(built: Bytecode) -> None:
    assert set(built.programs) == {spec.name for spec in PROGRAMS}
    assert all(code and len(code) % 8 == 0 for code in built.programs.values())


def test_the_switch_compiles_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    switch = source.switch()
    toolchain.compile_programs(switch.main, switch.directory, switch.flags, switch.programs)
    assert caplog.text == ""


def test_the_versions_are_those_of_the_host(built: Bytecode) -> None:
    assert built.bcc == toolchain.bcc_version()
    assert built.llvm.split(".")[0].isdigit()


def test_what_is_shipped_is_what_the_same_compiler_builds(built: Bytecode) -> None:
    """Made by another compiler it may differ; then every row is run on both (conftest.py)."""
    shipped = bytecode.read(source.SHIPPED, source.switch().digest())
    assert shipped is not None, "no bytecode of these sources: run `make build`"
    same_compiler = (shipped.bcc, shipped.llvm) == (built.bcc, built.llvm)
    assert not same_compiler or shipped.programs == built.programs


def test_building_writes_what_load_takes(tmp_path: Path, built: Bytecode) -> None:
    assert source.main(["build", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    assert source.load(tmp_path / "cache", shipped=file) == built


def _compile(tmp_path: Path, text: str) -> Bytecode:
    main = tmp_path / "test.c"
    main.write_text(text)
    of_test = source.Source.of(main, ["test"], map_names=["own"])
    return toolchain.compile_programs(of_test.main, of_test.directory, of_test.flags, of_test.programs)


INCLUDES = '#include <linux/bpf.h>\n#include "maps.h"\n'


def test_a_test_may_use_the_headers_and_a_map_of_its_own(tmp_path: Path) -> None:
    code = _compile(
        tmp_path,
        INCLUDES
        + "int test(struct __sk_buff *skb)\n{\n\t__u32 zero = 0;\n\n"
        + "\treturn bpf_map_lookup_elem_((__u64)VX_MAP(own), &zero) == 0;\n}\n",
    )
    assert maps.sentinels(["own"])["own"].to_bytes(4, "little") in code.programs["test"]


def test_an_error_in_c_is_told_with_file_and_line(tmp_path: Path) -> None:
    text = INCLUDES + "int test(struct __sk_buff *skb)\n{\n\treturn nowhere;\n}\n"
    told = r"cannot compile test\.c: test\.c:5:9: error: use of undeclared identifier 'nowhere' \(exit status 1\)"
    with pytest.raises(toolchain.CompileError, match=f"^{told}$"):
        _compile(tmp_path, text)


def test_llvm_giving_up_ends_the_child_alone(tmp_path: Path) -> None:
    """Signed division: BPF has none before cpu v4, and LLVM aborts."""
    text = "int test(struct __sk_buff *skb)\n{\n\tint mark = skb->mark, hash = skb->hash;\n\n\treturn mark / hash;\n}\n"
    with pytest.raises(toolchain.CompileError) as raised:
        _compile(tmp_path, INCLUDES + text)
    assert "sdiv" in raised.value.output or signal.SIGABRT.name in str(raised.value)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(toolchain.CompileError, match="Unknown program"):
        _compile(tmp_path, INCLUDES + "int other(struct __sk_buff *skb)\n{\n\treturn 0;\n}\n")
