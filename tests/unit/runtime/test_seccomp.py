"""The filter as the kernel reads it: an interpreter of its instructions decides calls of each architecture."""

import errno
import platform
import re
import socket
import struct
from pathlib import Path

import pytest

from orchestrator.runtime import seccomp

X86_64, AARCH64, I386, ARM = 0xC000003E, 0xC00000B7, 0x40000003, 0x40000028
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
NAMESPACES = {
    "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWCGROUP": 0x02000000,
    "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}
NEW_TIME = 0x80
THREAD, FORK, VFORK = 0x003D0F00, 17, 0x4111
OF_X86_64, OF_AARCH64 = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h")
"""The numbers of Linux's headers (package linux-libc-dev)."""


def decided(audit: int, number: int, argument: int = 0) -> int:
    """Interpret the filter for one call (linux/filter.h); return what it returns."""
    data = struct.pack("=IIQ6Q", number, audit, 0, argument, *[0] * 5)
    code = list(struct.iter_unpack("=HBBI", seccomp.program()))
    accumulator = at = 0
    while True:
        operation, yes, no, value = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x05:
                at += value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x25:
                at += yes if accumulator > value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x06:
                return int(value)
            case _:
                pytest.fail(f"unknown instruction {operation:#x}")


def refused(error: int) -> int:
    """What the filter returns for a call that fails with `error`."""
    return 0x00050000 | error


CALLS = [
    pytest.param(X86_64, {"clone": 56, "unshare": 272, "socket": 41, "socketpair": 53}, id="x86-64"),
    pytest.param(AARCH64, {"clone": 220, "unshare": 97, "socket": 198, "socketpair": 199}, id="aarch64"),
]


@pytest.mark.parametrize(("audit", "calls"), CALLS)
def test_namespaces_are_refused_and_processes_are_not(audit: int, calls: dict[str, int]) -> None:
    """Each flag alone and among others; the lowest byte of clone's flags is a signal, and the upper half is ignored."""
    for flag in NAMESPACES.values():
        assert decided(audit, calls["clone"], FORK | flag) == refused(errno.EPERM)
        assert decided(audit, calls["clone"], THREAD | flag | 1 << 40) == refused(errno.EPERM)
        assert decided(audit, calls["unshare"], flag) == refused(errno.EPERM)
    assert decided(audit, calls["unshare"], NEW_TIME) == refused(errno.EPERM)
    for flags in (THREAD, FORK, VFORK, NEW_TIME):
        assert decided(audit, calls["clone"], flags) == ALLOWED
    assert decided(audit, calls["unshare"], 0x400) == ALLOWED
    assert decided(audit, 435) == refused(errno.ENOSYS)


@pytest.mark.parametrize(("audit", "calls"), CALLS)
@pytest.mark.parametrize("call", ["socket", "socketpair"])
def test_sockets_have_usual_families(audit: int, calls: dict[str, int], call: str) -> None:
    """A virtual machine's, the kernel's cryptography and all others are refused."""
    allowed = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
    for family in range(64):
        expected = ALLOWED if family in allowed else refused(errno.EPERM)
        assert decided(audit, calls[call], family) == expected, family


@pytest.mark.parametrize(("audit", "calls"), CALLS)
def test_what_is_not_named_is_allowed(audit: int, calls: dict[str, int]) -> None:
    """Of the reviewed numbers only those of the table are refused; newer ones and those of x32 do not exist."""
    asked = {number: decided(audit, number) for number in range(1024)}
    named = 32 if audit == X86_64 else 29
    assert sum(result == refused(errno.EPERM) for result in asked.values()) == named + 12 + len(
        ("socket", "socketpair")
    )
    assert {number for number, result in asked.items() if result == refused(errno.ENOSYS)} == {435, *range(470, 1024)}
    assert all(asked[calls[name]] == ALLOWED for name in ("clone", "unshare"))
    for number in (0x40000000, 0x40000000 + 272, 0xFFFFFFFF):
        assert decided(audit, number) == refused(errno.ENOSYS)


@pytest.mark.parametrize("audit", [I386, ARM, 0])
def test_calls_of_other_architectures_end_the_process(audit: int) -> None:
    """Their numbers mean other calls, so none of them is allowed."""
    assert {decided(audit, number) for number in range(512)} == {KILLED}


@pytest.mark.parametrize(("header", "column"), [(OF_X86_64, 0), (OF_AARCH64, 1)])
def test_its_numbers_are_those_of_the_kernels_headers(header: Path, column: int) -> None:
    """Each call has the number of the header, as far as the header is new enough to have it."""
    if not header.is_file():
        pytest.skip(f"{header} is not on this machine ({platform.machine()})")
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    numbers = {name: int(number) for name, number in found}
    table = {name: pair[column] for name, pair in seccomp._REFUSED_CALLS.items()}  # noqa: SLF001 - the names of its numbers
    table |= dict(seccomp._REFUSED_NEW_CALLS)  # noqa: SLF001 - as above
    missing = {name for name in table if name not in numbers}
    assert missing <= {"iopl", "ioperm", "uselib", "open_tree_attr"}
    assert {name: number for name, number in table.items() if name in numbers} == {
        name: number for name, number in numbers.items() if name in table
    }
    names = ("clone", "unshare", "socket", "socketpair", "clone3")
    calls = {X86_64: (56, 272, 41, 53, 435), AARCH64: (220, 97, 198, 199, 435)}[X86_64 if column == 0 else AARCH64]
    assert tuple(numbers[name] for name in names) == calls
