"""abi.py says the same as abi.h.

abi.h is read twice: by a few regular expressions, for the names, and by cc, for what they mean. Both
must be the same as the registries of abi.py, so nothing can be added on one side alone.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from vxagent.datapath import abi, source
from vxagent.datapath.maps import DEFAULT_SIZES

ABI_H = source.find_directory() / "abi.h"

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"^#define\s+(VX_\w+)[ \t]+\S", re.MULTILINE)
_BLOCK = re.compile(r"^(enum|struct)\s+(\w+)\s*\{(.*?)^\};", re.MULTILINE | re.DOTALL)
_MEMBER = re.compile(r"^__[us]\d+\s+(\w+)(?:\[[^]]+\])?$")


def _members(name: str, body: str) -> list[str]:
    """The members of a struct; every statement in it must be one."""
    found = [_MEMBER.match(" ".join(statement.split())) for statement in body.split(";")[:-1]]
    assert all(found), f"struct {name} has a member that this test cannot read"
    return [member.group(1) for member in found if member]


def _enumerators(body: str) -> list[str]:
    return [part.split("=")[0].strip() for part in body.split(",") if part.strip()]


class Header:
    """The names that abi.h defines."""

    def __init__(self, text: str) -> None:
        text = _COMMENT.sub("", text)
        blocks = [(kind, name, body) for kind, name, body in _BLOCK.findall(text)]
        self.defines = _DEFINE.findall(text)
        self.structs = {name: _members(name, body) for kind, name, body in blocks if kind == "struct"}
        self.enums = {name: _enumerators(body) for kind, name, body in blocks if kind == "enum"}

    def questions(self) -> Iterator[str]:
        """C expressions for all that the names mean."""
        yield from self.defines
        for enumerators in self.enums.values():
            yield from enumerators
        for struct, members in self.structs.items():
            yield f"sizeof(struct {struct})"
            for member in members:
                yield f"offsetof(struct {struct}, {member})"
                yield f"sizeof((({_pointer(struct)})0)->{member})"


def _pointer(struct: str) -> str:
    return f"struct {struct} *"


@pytest.fixture(scope="module")
def header() -> Header:
    return Header(ABI_H.read_text())


@pytest.fixture(scope="module")
def compiled(header: Header, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What cc makes of each question."""
    questions = list(header.questions())
    lines = "".join(f'\tprintf("%lld\\n", (long long)({question}));\n' for question in questions)
    program = tmp_path_factory.mktemp("abi") / "abi.c"
    program.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{ABI_H}"\nint main(void)\n{{\n{lines}\treturn 0;\n}}\n'
    )
    subprocess.run(["cc", "-Wall", "-Werror", "-o", program.with_suffix(""), program], check=True)
    answers = subprocess.run([program.with_suffix("")], check=True, capture_output=True, text=True).stdout
    return dict(zip(questions, map(int, answers.split()), strict=True))


def test_every_define_has_its_mirror(header: Header, compiled: dict[str, int]) -> None:
    assert {name: compiled[name] for name in header.defines} == abi.DEFINES


def test_every_enum_has_its_mirror(header: Header, compiled: dict[str, int]) -> None:
    in_c = {name: {entry: compiled[entry] for entry in entries} for name, entries in header.enums.items()}
    in_python = {
        name: {_c_name(prefix, member): int(value) for member, value in enum.__members__.items()}
        for name, (enum, prefix) in abi.ENUMS.items()
    }
    assert in_c == in_python


def _c_name(prefix: str, member: str) -> str:
    return "VX_REASON_NONE" if (prefix, member) == ("VX_", "NONE") else prefix + member


def test_every_struct_has_its_mirror(header: Header) -> None:
    assert header.structs == {layout.name: list(layout.members) for layout in abi.STRUCTS}


@pytest.mark.parametrize("layout", abi.STRUCTS, ids=lambda layout: layout.name)
def test_offsets_and_sizes_of_members_are_the_same(layout: abi.Layout, compiled: dict[str, int]) -> None:
    name = layout.name
    in_c = {
        member: (
            compiled[f"offsetof(struct {name}, {member})"],
            compiled[f"sizeof((({_pointer(name)})0)->{member})"],
        )
        for member in layout.members
    }
    assert in_c == {member: (layout.offset(member), layout.size_of(member)) for member in layout.members}
    assert compiled[f"sizeof(struct {name})"] == layout.size


@pytest.mark.parametrize("layout", abi.STRUCTS, ids=lambda layout: layout.name)
def test_structs_have_no_implicit_padding(layout: abi.Layout, compiled: dict[str, int]) -> None:
    members = (compiled[f"sizeof((({_pointer(layout.name)})0)->{member})"] for member in layout.members)
    assert compiled[f"sizeof(struct {layout.name})"] == sum(members)


def test_a_member_added_to_the_header_alone_is_noticed() -> None:
    text = ABI_H.read_text().replace("__u32 max_macs;", "__u32 max_macs;\n\t__u32 added;")
    assert Header(text).structs["vx_port"] != list(abi.PORT.members)


def test_per_cpu_values_are_whole_words() -> None:
    """The kernel rounds each CPU's value up to 8 bytes; sums read them one after the other."""
    assert abi.TRAFFIC.size % 8 == 0
    assert abi.DROP_COUNT.size % 8 == 0


def test_handles_fit_into_their_members() -> None:
    assert max(DEFAULT_SIZES.ports, DEFAULT_SIZES.segments) <= 1 << 16


@pytest.mark.parametrize("reason", abi.Reason, ids=lambda reason: reason.name)
def test_reasons_are_named_as_the_design_names_them(reason: abi.Reason) -> None:
    assert abi.reason_label(reason) == reason.name.lower()


def test_a_reason_of_a_newer_data_plane_has_a_name_too() -> None:
    assert abi.reason_label(200) == "reason_200"


def test_packing_refuses_a_member_that_is_not_there() -> None:
    with pytest.raises(TypeError, match="vx_device has no member ifname"):
        abi.DEVICE.pack(ifname=1)
