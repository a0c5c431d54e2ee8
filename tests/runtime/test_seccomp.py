"""The filter in the kernel of this machine: what a filtered process cannot do, and what it still can."""

import asyncio
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runtime import toolchain
from orchestrator.runtime.tool_context import STANDARD_PATH
from orchestrator.wire.facts import UNFILTERED
from tests.support.scripted_host import a_run, calls, ended, says, scripted_host, work

pytestmark = pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="no filter for this machine")

NUMBERS = {
    "x86_64": {"unshare": 272, "setns": 308, "keyctl": 250},
    "aarch64": {"unshare": 97, "setns": 268, "keyctl": 219},
}
LOOK = """
import ctypes, errno, json, os, socket, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
numbers = json.loads(sys.argv[1])

def call(number, *arguments):
    arguments = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return "done" if libc.syscall(ctypes.c_long(number), *arguments) >= 0 else errno.errorcode[ctypes.get_errno()]

def tried(act):
    try: act()
    except OSError as error: return errno.errorcode[error.errno]
    return "done"

seen = []
thread = threading.Thread(target=lambda: seen.append("thread"))
thread.start(); thread.join()
forked = os.fork()
if forked == 0: os._exit(7)
spawned = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 8"], {})
print(json.dumps({
    "user namespace": call(numbers["unshare"], 0x10000000),
    "other unshare": call(numbers["unshare"], 0x400),
    "clone3": call(435, 0, 0),
    "setns": call(numbers["setns"], 0, 0),
    "keyring": call(numbers["keyctl"], 0, -3, 1),
    "io_uring": call(425, 1, ctypes.create_string_buffer(120)),
    "newer": call(470),
    "vsock": tried(lambda: socket.socket(40, socket.SOCK_STREAM)),
    "sockets": [tried(lambda: socket.socket(family)) for family in (socket.AF_UNIX, socket.AF_INET)],
    "interfaces": [name for _, name in socket.if_nameindex()][:1],
    "processes": [*seen, os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]),
                  os.waitstatus_to_exitcode(os.waitpid(spawned, 0)[1]),
                  subprocess.run(["sh", "-c", "(exit 9)"]).returncode],
}))
"""
FILTERED = {
    "user namespace": "EPERM",
    "other unshare": "done",
    "clone3": "ENOSYS",
    "setns": "EPERM",
    "keyring": "EPERM",
    "io_uring": "EPERM",
    "newer": "ENOSYS",
    "vsock": "EPERM",
    "sockets": ["done", "done"],
    "interfaces": ["lo"],
    "processes": ["thread", 7, 8, 9],
}
INSTALL = "from orchestrator.runtime import seccomp; assert seccomp.install()\n"


def look(program: str) -> dict[str, Any]:
    """Run `LOOK` after `program` in another process."""
    command = (sys.executable, "-I", "-c", program + LOOK, json.dumps(NUMBERS[platform.machine()]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_a_filtered_process_cannot_do() -> None:
    """Calls are refused as the table has them, and threads and processes start; without it, clone3 is there."""
    assert look(INSTALL) == FILTERED
    free = look("")
    assert free["clone3"] != FILTERED["clone3"], "the control failed: the test proves nothing"
    assert (free["processes"], free["sockets"]) == (FILTERED["processes"], FILTERED["sockets"])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the test's machine code is for x86-64")
def test_a_call_of_32_bit_programs_ends_the_process() -> None:
    """`int 0x80` reaches the kernel's table of 32-bit calls, whose numbers the filter's rules do not have."""
    program = (
        "import ctypes, mmap\n"
        "code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "code.write(bytes.fromhex('b814000000' 'cd80' 'c3'))\n"  # getpid
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())\n"
    )
    codes = [subprocess.run((sys.executable, "-I", "-c", before + program), capture_output=True, check=False).returncode
             for before in (INSTALL, "")]  # fmt: skip
    assert codes[0] == -31
    assert codes[1] in {0, -11}, "a kernel without 32-bit programs sends SIGSEGV"


def filtered(command: Sequence[str], directory: Path) -> tuple[int, str]:
    """Run a program behind the filter; return its exit code and its stderr."""
    program = f"{INSTALL}import subprocess, sys; sys.exit(subprocess.run({list(command)!r}).returncode)"
    done = subprocess.run(
        (sys.executable, "-I", "-c", program), cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


def test_node_works(tmp_path: Path) -> None:
    """With threads, child processes, files and sockets."""
    assert filtered((*toolchain.node(STANDARD_PATH), "-e", NODE), tmp_path) == (0, "")


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_git_works(tmp_path: Path) -> None:
    """It commits, and clones what it has committed."""
    script = (
        "git init -q one && cd one && echo x >a && git add a && git -c user.name=n -c user.email=e@x.y commit -q -m m"
        " && cd .. && git clone -q one two && test -f two/a"
    )
    assert filtered(("sh", "-c", script), tmp_path) == (0, "")


NODE = """
const { Worker } = require('worker_threads');
const { execFileSync } = require('child_process');
const fs = require('fs'), net = require('net'), os = require('os');
new Worker('require("worker_threads").parentPort.postMessage(1)', { eval: true }).on('message', async () => {
  execFileSync('true');
  os.networkInterfaces();
  await fs.promises.readFile('/etc/hostname').catch(() => 0);
  const server = net.createServer(end => end.end('x')).listen(0, '127.0.0.1', () =>
    net.connect(server.address().port, '127.0.0.1').on('data', () => server.close()));
});
"""


async def test_the_tools_of_a_real_runtime_are_filtered(tmp_path: Path) -> None:
    """What `exec` starts meets the filter, and the runtime reports it to the host."""
    asked = {
        "command": sys.executable,
        "args": ["-I", "-c", LOOK, json.dumps(NUMBERS[platform.machine()])],
        "env": {},
        "cwd": ".",
        "stdout": True,
        "stderr": True,
    }
    run, host = await work(tmp_path, a_run(), calls(("exec", asked)), says("done"))
    assert (run.code, run.stderr) == (0, "")
    text = run.event("resolveToolResults")["toolResults"][0]["result"][0]["text"]
    assert json.loads(json.loads(text)["output"]) == FILTERED
    facts = host.attached[0].facts
    assert facts is not None
    assert facts.filtered


async def test_without_a_filter_the_runtime_works_on(tmp_path: Path) -> None:
    """Where no filter can be set, as in a kernel without seccomp, it prints one sentence and reports it to the host."""
    async with scripted_host(tmp_path, a_run(), (says("done"),)) as host:
        options = ("--state", str(host.state), "--workspace", str(tmp_path / "workspace"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", WITHOUT_SECCOMP, "-I", "-m", "orchestrator.runtime", *options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        run = await ended(host, process)
    assert (run.code, run.stderr, run.types[-1]) == (0, f"{UNFILTERED}\n", "completeRun")
    facts = host.attached[0].facts
    assert facts is not None
    assert not facts.filtered


# A filter that answers PR_SET_SECCOMP as a kernel without seccomp does, and then the program.
WITHOUT_SECCOMP = """
import ctypes, errno, os, platform, struct, sys
prctl = {"x86_64": 157, "aarch64": 167}[platform.machine()]
code = b"".join(struct.pack("=HBBI", *each) for each in (
    (0x20, 0, 0, 0), (0x15, 0, 3, prctl), (0x20, 0, 0, 16), (0x15, 0, 1, 22), (6, 0, 0, 0x50000 | errno.EINVAL),
    (6, 0, 0, 0x7FFF0000),
))
libc, kept = ctypes.CDLL(None), ctypes.create_string_buffer(code)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
