"""Attacks on files: this machine's, those that grant authority, devices, programs of another user; and races."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.wire.event import ResolveToolResults
from tests.support.attacks import (
    CONTAINERS,
    NO_CONTROL,
    WORKS,
    Outcomes,
    assert_refused,
    belong,
    furnish,
    in_shell,
    nothing_left,
)
from tests.support.project import PYTHON, Project, say, use
from tests.support.traces import outside_directory

pytestmark = [pytest.mark.parametrize("backend", CONTAINERS, scope="module"), pytest.mark.mounted]

TOML = """
[experts.one]
instruction = "Do."
[experts.one.skills.kit]
type = "mcpStdioSkill"
command = "python3"
args = ["server.py"]
"""
READS = {
    "passwords": ("open('/etc/shadow').read()", "EACCES", "open('/etc/passwd').read()"),
    "root's home": ("os.listdir('/root')", "EACCES", "os.listdir('/etc')"),
    "SSH keys": ("open('/root/.ssh/id_rsa')", "EACCES", "open('/etc/hostname')"),
    "a user's AWS credentials": ("open('/home/user/.aws/credentials')", "ENOENT|EACCES", "open('/etc/hostname')"),
    "Docker's socket": ("os.stat('/var/run/docker.sock')", "ENOENT", "os.stat('/var/run')"),
    "containerd's socket": ("os.stat('/run/containerd/containerd.sock')", "ENOENT", "os.stat('/run')"),
    "a service account's token": ("os.listdir('/var/run/secrets')", "ENOENT|EACCES", "os.listdir('/etc')"),
    "a file of this machine by a link": ("open('/workspace/to-secret').read()", "ENOENT", "open('/workspace/to-own')"),
    "a file above the workspace": ("open('/workspace/../secret').read()", "ENOENT", "open('/workspace/../etc/hosts')"),
    "a file above it by a link": ("open('/workspace/to-above').read()", "ENOENT", "open('/workspace/to-own')"),
    "a hidden env file": (
        "assert open('/workspace/.env').read()",
        "AssertionError",
        "assert open('/workspace/own').read()",
    ),
    "a file by its handle": (
        "import struct; syscall(304, os.open('/workspace', os.O_PATH), struct.pack('IiII', 8, 1, 2, 0), 0)",
        "EPERM",
        "os.open('/workspace', os.O_PATH)",
    ),
    "sudo": ("assert shutil.which('sudo')", "AssertionError", "assert shutil.which('sh')"),
    "docker": ("assert shutil.which('docker')", "AssertionError", "assert shutil.which('env')"),
}
"""What an attacker looks for, the expected end, and the same code where it is allowed."""
MAKE = "open('/workspace/spare', 'w').close(); "
GUARDED = {
    f"{act} {file}": (code.format(file), why, control)
    for file in (".env", "perstack.toml", "perstack.lock")
    for act, code, why, control in (
        ("remove", "os.unlink('/workspace/{}')", "EBUSY", MAKE + "os.unlink('/workspace/spare')"),
        (
            "rename",
            "os.rename('/workspace/{}', '/workspace/x')",
            "EBUSY",
            "os.rename('/workspace/own', '/workspace/own')",
        ),
        (
            "link",
            "os.link('/workspace/{}', '/workspace/linked')",
            "EXDEV",
            "os.link('/workspace/own', '/workspace/l'); os.unlink('/workspace/l')",
        ),
        (
            "replace",
            "os.replace('/workspace/own', '/workspace/{}')",
            "EBUSY",
            MAKE + "os.replace('/workspace/spare', '/workspace/other')",
        ),
        ("change the mode of", "os.chmod('/workspace/{}', 0o600)", "EROFS|EPERM", "os.chmod('/workspace/own', 0o644)"),
    )
} | {
    f"write to {file}": (f"open('/workspace/{file}', 'r+')", "EROFS|EACCES", "open('/workspace/own', 'r+')")
    for file in ("perstack.toml", "perstack.lock")
}
MACHINE = {
    "the system": ("open('/usr/bin/made', 'w')", "EROFS|EACCES", "open('/workspace/made', 'w')"),
    "the system's settings": ("open('/etc/passwd', 'a')", "EROFS|EACCES", "open('/workspace/made', 'a')"),
    "the platform": ("open('/opt/perstack/made', 'w')", "EROFS|EACCES", "open('/workspace/made', 'a')"),
    "packages": ("open('/packages/made', 'w')", "EROFS|EACCES|ENOENT", "open('/workspace/made', 'a')"),
    "what dumps core": ("open('/proc/sys/kernel/core_pattern', 'r+')", "EROFS|EACCES", "open('/dev/null', 'r+')"),
    "the magic key": ("open('/proc/sysrq-trigger', 'r+')", "EROFS|EACCES|ENOENT", "open('/dev/null', 'r+')"),
    "control groups": ("open('/sys/fs/cgroup/made', 'w')", "EROFS|EACCES", "open('/workspace/made', 'w')"),
    "a disk": (
        "os.mknod('/workspace/disk', 0o60600, os.makedev(8, 0))",
        "EPERM|EACCES",
        "os.mknod('/workspace/fifo', 0o10600); os.unlink('/workspace/fifo')",
    ),
    "all memory": (
        "os.mknod('/workspace/mem', 0o20600, os.makedev(1, 1))",
        "EPERM|EACCES",
        "os.mknod('/workspace/fifo', 0o10600); os.unlink('/workspace/fifo')",
    ),
    "the kernel's log": ("open('/dev/kmsg')", "ENOENT|EACCES", "open('/dev/zero')"),
    "a tunnel": ("open('/dev/net/tun')", "ENOENT|EACCES", "open('/dev/zero')"),
    "a mount": ("syscall(165, b'none', b'/workspace', b'tmpfs', 0, None)", "EPERM", "os.listdir('/workspace')"),
    "another root": ("os.chroot('/workspace')", "EPERM", "os.chdir('/workspace')"),
    "another user": ("os.setuid(0)", "EPERM", "os.setuid(os.getuid())"),
    "a user namespace": ("syscall(272, 0x10000000)", "EPERM", "syscall(39)"),
    "a user namespace for a process": ("syscall(56, 0x10000011, 0, 0, 0, 0)", "EPERM", "child()"),
    "another way to a process": ("syscall(435, ctypes.create_string_buffer(88), 88)", "ENOSYS", "syscall(39)"),
    "asynchronous calls": ("syscall(425, 1, ctypes.create_string_buffer(120))", "EPERM", "syscall(39)"),
    "a keyring": ("syscall(250, 0, -3, 1)", "EPERM", "syscall(39)"),
    "the kernel's messages": ("syscall(103, 10, 0, 0)", "EPERM", "syscall(39)"),
    "the virtual machine around": ("socket.socket(socket.AF_VSOCK)", "EPERM", "socket.socket(socket.AF_UNIX)"),
    "the kernel's cryptography": ("socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)", "EPERM", "socket.socket()"),
}
TABLE = {**READS, **GUARDED, **MACHINE}
SEATS = {"exec": (), "skill": ("--skill", "kit")}
AS_ROOT = "import subprocess; assert subprocess.check_output(['/workspace/as-root', '-u']).strip() == b'0'"


@pytest.fixture(scope="module")
def outcomes(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Outcomes]]:
    """All attacks and their controls from `exec` and from a skill, in a workspace full of temptations."""
    root = tmp_path_factory.mktemp("files")
    made = Project.make(root / "project", backend, TOML, {})
    furnish(made)
    secret = made.workspace.parent / "secret"
    secret.write_text("canary-of-this-machine")
    for name in (".env", "perstack.toml", "perstack.lock", "own"):
        (made.workspace / name).write_text("x = 1\n")
    for name, target in (("to-secret", secret), ("to-above", "../secret"), ("to-own", "own")):
        (made.workspace / name).symlink_to(target)
    belong(made, *made.workspace.iterdir())
    shutil.copy("/usr/bin/id", made.workspace / "as-root")
    (made.workspace / "as-root").chmod(0o4755)
    attacks = {name: code for name, (code, *_) in TABLE.items()} | {"set-user-id": AS_ROOT}
    controls = {f"control {name}": code for name, (*_, code) in TABLE.items()}
    found = {seat: asyncio.run(in_shell(made, seat, {**attacks, **controls}, *options))[0]
             for seat, options in SEATS.items()}  # fmt: skip
    yield found
    nothing_left(root, backend)


@pytest.mark.behaviour("G12")
@pytest.mark.parametrize("seat", SEATS)
@pytest.mark.parametrize("name", READS)
def test_nothing_of_this_machine_is_read(outcomes: Mapping[str, Outcomes], name: str, seat: str) -> None:
    """A file that is not for an Expert is absent or cannot be read; one next to it for the Expert can be read."""
    assert outcomes[seat][f"control {name}"] == WORKS, NO_CONTROL
    assert_refused(outcomes[seat][name], READS[name][1])


@pytest.mark.parametrize("seat", SEATS)
@pytest.mark.parametrize("name", GUARDED)
def test_what_grants_authority_stays_as_it_is(outcomes: Mapping[str, Outcomes], name: str, seat: str) -> None:
    """perstack.toml, its lock and env files in a workspace never change; each attack works with another file."""
    assert outcomes[seat][f"control {name}"] == WORKS, NO_CONTROL
    assert_refused(outcomes[seat][name], GUARDED[name][1])


@pytest.mark.behaviour("G12")
@pytest.mark.parametrize("seat", SEATS)
@pytest.mark.parametrize("name", MACHINE)
def test_nothing_of_the_machine_is_changed(outcomes: Mapping[str, Outcomes], name: str, seat: str) -> None:
    """No device, no mount, no other user and no file outside the workspace can be changed."""
    assert outcomes[seat][f"control {name}"] == WORKS, NO_CONTROL
    assert_refused(outcomes[seat][name], MACHINE[name][1])


@pytest.mark.parametrize("seat", SEATS)
def test_a_program_that_runs_as_root_elsewhere_does_not_here(outcomes: Mapping[str, Outcomes], seat: str) -> None:
    """A set-user-id copy of `id`, which belongs to root: outside a Sandbox it gives root to any user."""
    with outside_directory() as directory:
        copy = directory / "as-root"
        shutil.copy("/usr/bin/id", copy)
        directory.chmod(0o755)
        copy.chmod(0o4755)
        nobody = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"]
        assert subprocess.check_output([*nobody, copy, "-u"], timeout=20) == b"0\n", NO_CONTROL
    assert_refused(outcomes[seat]["set-user-id"], "AssertionError")


# A directory and a link to another change places, as fast as they can.
RACE = """
import ctypes, os, subprocess, sys, time
os.makedirs("/tmp/exec/outside"); os.makedirs("/workspace/swap")
open("/tmp/exec/outside/file", "w").write("BEYOND"); open("/workspace/swap/file", "w").write("inside")
os.symlink("/tmp/exec/outside", "/workspace/link")
if os.fork(): os._exit(0)
os.setsid()
for fd in range(3): os.close(fd)
call, until = ctypes.CDLL(None).syscall, time.monotonic() + 60
while time.monotonic() < until:
    if call(316, -100, b"/workspace/swap", -100, b"/workspace/link", 2) == 0: continue
    # This file system exchanges no names.
    for name, to in ("swap", "away"), ("link", "swap"), ("swap", "link"), ("away", "swap"):
        try: os.rename("/workspace/" + name, "/workspace/" + to)
        except OSError: pass
"""
NAIVE = """
import time
until = time.monotonic() + 20
while time.monotonic() < until:
    try:
        if open("/workspace/swap/file").read() == "BEYOND": print("escaped"); break
    except OSError: pass
"""
TOOLS: Mapping[str, Mapping[str, Any]] = {
    "readTextFile": {"path": "swap/file"},
    "getFileInfo": {"path": "swap/file"},
    "listDirectory": {"path": "swap"},
    "writeTextFile": {"path": "swap/file", "text": "inside"},
    "appendTextFile": {"path": "swap/file", "text": ""},
    "editTextFile": {"path": "swap/file", "oldText": "BEYOND", "newText": "changed"},
    "moveFile": {"source": "own", "destination": "swap/own"},
    "createDirectory": {"path": "swap/made"},
    "deleteFile": {"path": "swap/deleted"},
    "deleteDirectory": {"path": "swap/made"},
}
TIMES = 25


@dataclass(frozen=True)
class Raced:
    """What the tools returned, and what is outside afterwards."""

    naive: str
    answers: Mapping[str, list[str]]
    outside: str


def _exec(program: str, *args: str) -> tuple[str, dict[str, Any]]:
    return "exec", {"command": program, "args": list(args), "env": {}, "cwd": ".", "stdout": True, "stderr": True}


@pytest.fixture(scope="module")
def raced(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raced]:
    """One Run whose commands swap while its tools work."""
    root = tmp_path_factory.mktemp("races")
    python = PYTHON[backend]
    many = [call for _ in range(TIMES) for call in TOOLS.items()]
    look = "import os; print(sorted(os.listdir('/tmp/exec/outside')), open('/tmp/exec/outside/file').read())"
    replies = [
        use(_exec(python, "-c", RACE)),
        use(_exec(python, "-c", NAIVE)),
        use(*many),
        use(_exec(python, "-c", look)),
        say("done"),
    ]
    made = Project.make(root / "project", backend, '[experts.one]\ninstruction = "Do."\n', {"one": replies})
    result = asyncio.run(made.run("one", "go", "--events", "full"))
    assert result.code == 0, result.stderr
    answers = [[part.text for part in each.result] for event in result.of(ResolveToolResults)
               for each in event.tool_results]  # fmt: skip
    texts = ["".join(parts) for parts in answers]
    by_tool: dict[str, list[str]] = {}
    for (tool, _), text in zip(many, texts[2:-1], strict=True):
        by_tool.setdefault(tool, []).append(text)
    yield Raced(json.loads(texts[1])["output"], by_tool, json.loads(texts[-1])["output"])
    nothing_left(root, backend)


@pytest.mark.parametrize("tool", TOOLS)
def test_no_tool_is_led_outside_by_a_race(raced: Raced, tool: str) -> None:
    """Without care, a program that opens the path is led outside within moments; no built-in tool ever is."""
    assert raced.naive == "escaped\n", NO_CONTROL
    assert any('"inside"' in text for text in raced.answers["readTextFile"]), "the tools did not work at all"
    assert [text for text in raced.answers[tool] if "BEYOND" in text or "changed" in text] == []


def test_nothing_outside_was_changed_by_a_race(raced: Raced) -> None:
    """Nothing was written, deleted or made there."""
    assert raced.outside == "['file'] BEYOND\n"
