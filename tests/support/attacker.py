"""Tries to get out: `attacker.py ATTACKS OUTCOMES`, two JSON files; the second gets the result of each attack by name.

With a third word `at-once` no attack waits for another. It runs alone in an interpreter, in a Sandbox or, as a control,
outside of one. An attack is Python that uses the functions below, in a separate process. Its result is `works`, or the
error of the kernel or the proxy.
"""

import base64
import contextlib
import ctypes
import errno
import json
import os
import re  # noqa: F401 - for attacks
import shutil  # noqa: F401 - for attacks
import signal
import socket
import ssl
import sys
import urllib.parse
from pathlib import Path
from typing import Any

WORKS = "works"
_SECONDS = 8
_SAID = 2000
_OF_THE_RESOLVER = (socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_NODATA)
_libc = ctypes.CDLL(None, use_errno=True)
_buffer = ctypes.create_string_buffer(16)


def syscall(number: int, *arguments: object) -> int:
    """Call the kernel by the number of the call on x86-64."""
    # A plain int passes only half a register; on the stack, where the seventh argument is, the other half is undefined.
    whole = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    result: int = _libc.syscall(ctypes.c_long(number), *whole)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def reach(host: str, port: int, family: int = socket.AF_UNSPEC) -> None:
    """Connect over TCP without any proxy."""
    address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0]
    with socket.socket(*address[:2]) as end:
        end.settimeout(2)
        end.connect(address[4])


def ask(host: str, port: int = 443, **request: Any) -> str:
    """Connect to a host through the proxy, as `request` describes, and return what it serves."""
    end = through(f"{host}:{port}", **request)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(end, server_hostname=host) as tls:
        tls.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return tls.recv(1000).decode().rpartition("\r\n\r\n")[2]


def through(target: str, method: str = "CONNECT", head: str = "", user: str = "", port: int = 0) -> socket.socket:
    """Request a target from the proxy that the environment names, or the one at `port`; return the connection.

    `user` replaces the NAME:PASSWORD of the environment, `head` adds lines to the request.
    """
    named = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
    login = base64.b64encode((user or f"{named.username}:{named.password}").encode()).decode()
    end = socket.create_connection(("127.0.0.1", port or named.port), _SECONDS)
    end.settimeout(_SECONDS)
    end.sendall(f"{method} {target} HTTP/1.1\r\nProxy-Authorization: Basic {login}\r\n{head}\r\n".encode())
    status = b""
    while b"\r\n\r\n" not in status and (more := end.recv(4096)):
        status += more
    said = status.partition(b"\r\n")[0].decode(errors="replace")
    if " 200 " not in f"{said} ":
        raise OSError(said or "closed")
    return end


def question(name: str) -> bytes:
    """Return a DNS query for the addresses of a name (RFC 1035 4)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


def ask_dns(server: str, name: str) -> None:
    """Send a query to a name server over UDP, and wait for the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(2)
        end.connect((server, 53))
        end.send(question(name))
        end.recv(512)


def anywhere(name: str) -> str:
    """Find a file of this name in all that is mounted here."""
    for top, directories, files in os.walk("/"):
        if top == "/":
            directories[:] = [each for each in directories if each not in {"proc", "sys"}]
        if name in files:
            return os.path.join(top, name)  # noqa: PTH118 - as os.walk has it
    raise OSError(errno.ENOENT, name)


def processes(words: str) -> list[int]:
    """Find other processes by a part of their command line, except the caller's own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if words.encode() in line and b"attacker.py" not in b" ".join(line.split(b"\0")[:3]):
            found.append(int(entry.name))
    return sorted(found)


def child() -> int:
    """Start a process of the same domain that does nothing; as a fork it has this one's memory and environment."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid


def begun(code: str) -> tuple[int, int]:
    """Start one attack in a separate process; return its pid, and a pipe for its result."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.close(ours)
        signal.alarm(_SECONDS * 2)
        os.write(theirs, _outcome(code)[:_SAID].encode(errors="replace"))
        os._exit(0)
    os.close(theirs)
    return pid, ours


def told(pid: int, end: int) -> str:
    """Wait for the end of an attack, and return its result."""
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)  # what it has started
    with os.fdopen(end, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    return said or f"ended by signal {os.WTERMSIG(status)}"


def _outcome(code: str) -> str:
    try:
        exec(code, dict(globals()))  # noqa: S102 - what it is for
    except ssl.SSLError as error:
        return error.reason or str(error)
    except socket.gaierror as error:
        return "no such name" if error.errno in _OF_THE_RESOLVER else str(error)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error) or type(error).__name__)
    except Exception as error:  # noqa: BLE001 - the outcome reports it
        return f"{type(error).__name__}: {error}"
    return WORKS


def main() -> None:
    """Run all attacks, one after the other unless at once."""
    attacks = json.loads(Path(sys.argv[1]).read_text())
    if sys.argv[3:] == ["at-once"]:
        running = {name: begun(code) for name, code in attacks.items()}
        outcomes = {name: told(*attack) for name, attack in running.items()}
    else:
        outcomes = {name: told(*begun(code)) for name, code in attacks.items()}
    # Written in one step, since other processes wait for it.
    unfinished = Path(f"{sys.argv[2]}.part")
    unfinished.write_text(json.dumps(outcomes))
    unfinished.rename(sys.argv[2])


if __name__ == "__main__":
    main()
