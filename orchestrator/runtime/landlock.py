"""Landlock, with which an unprivileged thread restricts itself and all that it starts.

System calls and structures are those of linux/landlock.h; `man 7 landlock` lists which ABI added what. All rules are
best effort: what the kernel does not support is not enforced, and `wire.facts` reports that.
"""

import ctypes
import os
import stat
import struct
from functools import cache
from pathlib import Path

from orchestrator.runtime.domain import Domain

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_CREATE_RULESET_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_FILE_CAPABILITIES = 0b11111  # chown, dac_override, dac_read_search, fowner, fsetid

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 13, 1 << 14, 1 << 15
_FILES_OF_FIRST_ABI = (1 << 13) - 1
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1

_ABI_REFER, _ABI_TRUNCATE, _ABI_TCP, _ABI_IOCTL, _ABI_SCOPE = 2, 3, 4, 5, 6

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = (_FILES_OF_FIRST_ABI & ~_MAKE_CHAR & ~_MAKE_BLOCK) | _REFER | _TRUNCATE
_USE_DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def abi() -> int:
    """The usable version of Landlock; 0 if the kernel, its boot options or a seccomp profile deny it."""
    version: int = libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(0, version)


def build(domain: Domain, version: int) -> int:
    """Create a ruleset for `domain`, as far as `version` supports it; return its descriptor, which the caller closes.

    Raises:
        OSError: the kernel refused, which is not expected for valid domains.
    """
    files = _handled_files(version)
    tcp = _BIND_TCP | _CONNECT_TCP if domain.connect is not None and version >= _ABI_TCP else 0
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if version >= _ABI_SCOPE else 0
    attributes = struct.pack("=QQQ", files, tcp, scoped)[
        : 8 if version < _ABI_TCP else 16 if version < _ABI_SCOPE else 24
    ]
    ruleset: int = libc().syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    _check(ruleset)
    try:
        for paths, access in ((domain.read, _READ), (domain.write, _WRITE), (domain.devices, _USE_DEVICE)):
            for path in paths:
                _allow_path(ruleset, path, access & files)
        for port in (domain.connect or ()) if tcp else ():
            _add(ruleset, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port))
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def enter(ruleset: int | None) -> None:
    """Restrict the calling thread, and all that it starts, permanently to `ruleset`; None only drops privileges.

    Raises:
        OSError: the kernel refused.
    """
    _check(libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _drop_capabilities()
    if ruleset is not None:
        _check(libc().syscall(_RESTRICT_SELF, ruleset, 0))


@cache
def libc() -> ctypes.CDLL:
    """The C library of this process; loading it takes 0.3 ms."""
    return ctypes.CDLL(None, use_errno=True)


def _drop_capabilities() -> None:
    # Only a process backend run by root has any. Its tools keep root's file access, but CAP_PERFMON, which can read
    # every process's environ despite Landlock (fs/proc, may_access_mm), must be dropped.
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    capabilities = ctypes.create_string_buffer(24)
    _check(libc().capget(header, capabilities))
    low = (word & _FILE_CAPABILITIES for word in struct.unpack_from("=III", capabilities))
    _check(libc().capset(header, struct.pack("=IIIIII", *low, 0, 0, 0)))


def _handled_files(version: int) -> int:
    added = {_ABI_REFER: _REFER, _ABI_TRUNCATE: _TRUNCATE, _ABI_IOCTL: _IOCTL_DEV}
    return _FILES_OF_FIRST_ABI | sum(right for since, right in added.items() if version >= since)


def _allow_path(ruleset: int, path: Path, access: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # A missing or inaccessible path needs no rule.
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            access &= _FOR_FILES
        _add(ruleset, _PATH_BENEATH, struct.pack("=Qi", access, target))
    finally:
        os.close(target)


def _add(ruleset: int, kind: int, rule: bytes) -> None:
    _check(libc().syscall(_ADD_RULE, ruleset, kind, rule, 0))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
