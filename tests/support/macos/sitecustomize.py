"""Makes a Python process on Linux look like one on macOS: its platform's name, what its modules have, and no /proc.

A process that has this directory in PYTHONPATH imports this module before anything else. The lists follow the types
that typeshed has for macOS (https://github.com/python/typeshed/tree/main/stdlib).
"""

import asyncio.unix_events  # noqa: F401 - chooses how it waits for children before the platform has another name
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import sys
import sysconfig
import time
import types

_ABSENT: dict[types.ModuleType, tuple[str, ...]] = {
    os: (
        *("O_PATH", "O_TMPFILE", "O_DIRECT", "O_NOATIME", "O_LARGEFILE", "O_RSYNC"),
        *("pidfd_open", "waitid", "P_PIDFD", "memfd_create", "eventfd", "eventfd_read", "eventfd_write"),
        *("getxattr", "setxattr", "listxattr", "removexattr", "splice", "copy_file_range", "pipe2"),
        *("fdatasync", "posix_fallocate", "posix_fadvise", "getrandom", "sched_getaffinity", "sched_setaffinity"),
        *("sched_setscheduler", "sched_getscheduler", "getresuid", "getresgid", "setresuid", "setresgid"),
        *("unshare", "setns", "login_tty"),
    ),
    socket: (
        *(
            "TCP_KEEPIDLE",
            "TCP_USER_TIMEOUT",
            "SO_PEERCRED",
            "SO_PASSCRED",
            "SO_DOMAIN",
            "SO_PROTOCOL",
            "SO_BINDTODEVICE",
        ),
        *("SOCK_CLOEXEC", "SOCK_NONBLOCK", "AF_NETLINK", "AF_VSOCK", "AF_PACKET"),
    ),
    fcntl: ("F_OFD_SETLK", "F_OFD_SETLKW", "F_OFD_GETLK", "F_ADD_SEALS", "F_GET_SEALS", "F_SETPIPE_SZ", "F_SETLEASE"),
    signal: ("pidfd_send_signal", "sigtimedwait", "sigwaitinfo", "SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGPOLL", "SIGCLD"),
    select: ("epoll",),
    resource: ("prlimit",),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI"),
}
_PRESENT: dict[types.ModuleType, dict[str, int]] = {
    fcntl: {"F_GETPATH": 50, "F_FULLFSYNC": 51},
    socket: {"TCP_KEEPALIVE": 4},
}
"""What macOS has and Linux has not; Linux refuses these commands of `fcntl`, and 4 is its TCP_KEEPIDLE."""

_HIDDEN = ("/proc", "/sys")


def _hide(event: str, arguments: tuple[object, ...]) -> None:
    """Let no file of the Linux kernel be found."""
    if event in {"open", "os.listdir", "os.scandir", "os.chdir"} and str(arguments[0]).startswith(_HIDDEN):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(arguments[0]))


sysconfig.get_config_vars()  # read from a file that is named after the platform
for _module, _names in _ABSENT.items():
    for _name in _names:
        if hasattr(_module, _name):
            delattr(_module, _name)
for _module, _values in _PRESENT.items():
    for _name, _value in _values.items():
        setattr(_module, _name, _value)
_proxies = types.ModuleType("_scproxy")  # `urllib.request` asks it for the proxies of the system's settings
vars(_proxies).update(_get_proxy_settings=dict, _get_proxies=dict)
sys.modules["_scproxy"] = _proxies
sys.platform = "darwin"
sys.addaudithook(_hide)
