"""The seccomp filter that the runtime sets for itself and for all that it starts.

The filters of engines differ: Podman's lets a program make a user namespace, and gVisor and `--backend process` have
none. This one is the same everywhere (decision 100). It refuses calls that open more of the kernel than tools need, and
allows all others. `man 2 seccomp` describes its instructions, linux/audit.h the architectures.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Mapping

from orchestrator.runtime.landlock import libc

_BYTES = 8
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2

_LOAD, _JUMP, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_ANY_BIT, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in what the kernel shows of a call; of an argument this is the lower half, on little-endian machines."""

_ALLOW, _ERROR, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000

_REFUSED, _ALLOWED, _ABSENT = -3, -2, -1
"""Where the decisions are, from the end of the rules."""

_NAMESPACES = 0x7E020080
"""Every CLONE_NEW… flag."""
_NAMESPACES_OF_CLONE = _NAMESPACES & ~0xFF
"""The same for `clone`, whose lowest byte is a signal."""

_FAMILIES = (1, 2, 10, 16)
"""Address families that sockets may have: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK.

The others are code of the kernel that few programs need, and a namespace does not confine AF_VSOCK: it leads out of the
virtual machine that the engine may be in.
"""

_NEWEST = 469
"""The newest call that was reviewed. Newer ones, and those of x32, which are above 2**30, count as not implemented."""

_CLONE3 = 435
_REFUSED_NEW_CALLS: Mapping[str, int] = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}
"""Since 424, a call has the same number on every architecture."""

_REFUSED_CALLS: Mapping[str, tuple[int, int | None]] = {
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "uselib": (134, None),
}
"""The older ones, by the numbers of x86-64 and of AArch64 (asm/unistd_64.h, asm-generic/unistd.h)."""

_AUDIT_X86_64, _AUDIT_AARCH64 = 0xC000003E, 0xC00000B7
_MACHINES = ("x86_64", "aarch64")
"""What `uname` calls them."""


def install() -> bool:
    """Filter the system calls of the calling thread and of all that it starts, permanently; call it before any thread.

    Return False if nothing is filtered: the kernel or the engine does not let a process do that, or the machine is of
    another architecture.
    """
    if os.uname().machine not in _MACHINES:
        return False
    instructions = program()
    code = ctypes.create_string_buffer(instructions, len(instructions))
    described = struct.pack("@HP", len(instructions) // _BYTES, ctypes.addressof(code))
    prctl = libc().prctl
    # Without the first, only root of the machine may set a filter.
    return bool(prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and prctl(_PR_SET_SECCOMP, _MODE_FILTER, described) == 0)


def program() -> bytes:
    """Return the filter, instructions of eight bytes.

    It has the rules of both architectures: under an emulator, programs of one make the calls of the other. A call of a
    third one, such as of a 32-bit program, ends the process: its numbers mean something else.
    """
    x86_64, aarch64 = ([pair[column] for pair in _REFUSED_CALLS.values()] for column in (0, 1))
    of_x86_64 = _rules(56, 272, (41, 53), [number for number in x86_64 if number is not None])
    of_aarch64 = _rules(220, 97, (198, 199), [number for number in aarch64 if number is not None])
    code = [_instruction(_LOAD, _ARCHITECTURE)]
    for architecture, rules in ((_AUDIT_X86_64, of_x86_64), (_AUDIT_AARCH64, of_aarch64)):
        code += (_instruction(_JUMP_EQUAL, architecture, 1), _instruction(_JUMP, len(rules)), *rules)
    code.append(_instruction(_RETURN, _KILL_PROCESS))
    return struct.pack(f"<{len(code)}Q", *code)


def _rules(clone: int, unshare: int, sockets: tuple[int, int], refused: list[int]) -> list[int]:
    """Return the rules for one architecture, by its numbers of calls."""
    tests = [
        (_LOAD, _NUMBER, 0, 0),
        (_JUMP_GREATER, _NEWEST, _ABSENT, 0),
        # Its flags are in memory, where a filter cannot read them; libc then uses `clone`.
        (_JUMP_EQUAL, _CLONE3, _ABSENT, 0),
        *((_JUMP_EQUAL, number, _REFUSED, 0) for number in (*_REFUSED_NEW_CALLS.values(), *refused)),
        (_JUMP_EQUAL, clone, 0, 2),
        (_LOAD, _FIRST_ARGUMENT, 0, 0),
        (_JUMP_ANY_BIT, _NAMESPACES_OF_CLONE, _REFUSED, _ALLOWED),
        (_JUMP_EQUAL, unshare, 0, 2),
        (_LOAD, _FIRST_ARGUMENT, 0, 0),
        (_JUMP_ANY_BIT, _NAMESPACES, _REFUSED, _ALLOWED),
        (_JUMP_EQUAL, sockets[0], 1, 0),
        (_JUMP_EQUAL, sockets[1], 0, _ALLOWED),
        (_LOAD, _FIRST_ARGUMENT, 0, 0),
        *((_JUMP_EQUAL, family, _ALLOWED, 0) for family in _FAMILIES),
        (_RETURN, _ERROR | errno.EPERM, 0, 0),
        (_RETURN, _ALLOW, 0, 0),
        (_RETURN, _ERROR | errno.ENOSYS, 0, 0),
    ]
    end = len(tests)
    return [
        _instruction(code, value, *(skip if skip >= 0 else end + skip - at for skip in (yes, no)))
        for at, (code, value, yes, no) in enumerate(tests, 1)
    ]


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> int:
    """One instruction; `yes` and `no` are how many instructions to skip after a comparison."""
    return value << 32 | no << 24 | yes << 16 | code
