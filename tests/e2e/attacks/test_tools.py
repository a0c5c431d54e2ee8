"""Between the tools of one Run: what commands and a hostile skill can do to another skill, the runtime, the events."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire.event import ResolveToolResults
from orchestrator.wire.identity import identify
from tests.support import attacker
from tests.support.attacks import (
    CONTAINERS,
    IN_PRODUCTION,
    NO_CONTROL,
    WORKS,
    Outcomes,
    assert_refused,
    furnish,
    nothing_left,
    outside,
    ready,
    told,
)
from tests.support.backend_kinds import docker_place, kubernetes_place
from tests.support.project import PYTHON, Project, Result, say, use
from tests.support.submitted_project import made_project

pytestmark = pytest.mark.parametrize("backend", [*CONTAINERS, IN_PRODUCTION], scope="module")

TOML = """
[experts.one]
instruction = "Do."
[experts.one.skills."@perstack/base"]
type = "mcpStdioSkill"
command = "npx"
packageName = "@perstack/base"
allowedDomains = ["api.exec.test"]
[experts.one.skills.victim]
type = "mcpStdioSkill"
command = "PYTHON"
args = ["-I", "/workspace/victim.py", "/workspace/victim.json"]
requiredEnv = ["VICTIM_KEY"]
allowedDomains = ["api.victim.test"]
[experts.one.skills.thief]
type = "mcpStdioSkill"
command = "PYTHON"
args = ["-I", "/workspace/thief.py"]
requiredEnv = ["THIEF_KEY"]
allowedDomains = ["api.thief.test"]
"""
KEYS = {"VICTIM_KEY": "canary-victim-key", "THIEF_KEY": "canary-thief-key"}
JOB = "forge"

DENIED = "EACCES|EPERM"
BY_CALL = (
    "import struct; at = ctypes.addressof(_buffer); "
    "here, there = (struct.pack('QQ', at + shift, 8) for shift in (0, 8));"
)
PROCESS: Mapping[str, str] = {
    "environment": "assert open(f'/proc/{target}/environ').read()",
    "memory map": "assert open(f'/proc/{target}/maps').read()",
    "memory": (
        "memory = open(f'/proc/{target}/mem', 'rb', 0); "
        "memory.seek(ctypes.cast(_libc.getpid, ctypes.c_void_p).value); assert len(memory.read(4)) == 4"
    ),
    "memory by system call": f"{BY_CALL} syscall(310, target, here, 1, there, 1, 0)",
    "writing its memory": f"{BY_CALL} syscall(311, target, here, 1, there, 1, 0)",
    "open files": "os.readlink(f'/proc/{target}/fd/0')",
    "what it writes to": "open(f'/proc/{target}/fd/2', 'w')",
    "directory": "os.readlink(f'/proc/{target}/cwd')",
    "files as it sees them": "os.listdir(f'/proc/{target}/root/etc')",
    "namespaces": "os.readlink(f'/proc/{target}/ns/mnt')",
    "system call": "open(f'/proc/{target}/syscall').read()",
    "debugging": "syscall(101, 16, target, 0, 0)",
    "signal": "os.kill(target, 0)",
    "signal by descriptor": "signal.pidfd_send_signal(os.pidfd_open(target), 0)",
}
"""What one process may do to another, `target`."""
BY_SECCOMP = ("memory by system call", "writing its memory")
"""What engines forbid to all processes of a container."""

PLACES: Mapping[str, tuple[str, str, str]] = {
    "home": ("os.listdir(VICTIM['home'])", "EACCES", "EACCES"),
    "file": ("open(VICTIM['home'] + '/secret').read()", "EACCES", "EACCES"),
    "abstract socket": ("socket.socket(socket.AF_UNIX).connect(chr(0) + 'victim')", "EPERM", "EPERM"),
    "proxy with one's own credential": (
        "through('api.victim.test:443', port=VICTIM['proxy'])",
        "407 this proxy belongs to another skill",
        "EACCES",
    ),
    "host by one's own proxy": (
        "through('api.victim.test:443')",
        "403 api.victim.test is not declared",
        "403 .* not declared",
    ),
}
"""What else the victim has, and the expected end for `exec` and for a skill."""
THROUGH = f"{WORKS}|403 api.victim.test cannot be resolved"
"""What the victim gets there; its host need not exist in any network."""

OF_EXEC: Mapping[str, str] = {
    "home of commands": "os.listdir('/tmp/exec')",
    "/tmp": "open('/tmp/planted', 'w')",
    "shared memory": "open('/dev/shm/planted', 'w')",
}
"""What belongs to commands only."""

STATE: Mapping[str, tuple[str, str]] = {
    "list": ("os.listdir('/run/perstack')", "EACCES"),
    "read the spool": ("open('/run/perstack/events.jsonl').read()", "EACCES"),
    "write to the spool": ("open('/run/perstack/events.jsonl', 'a')", "EACCES"),
    "cut the spool": ("os.truncate('/run/perstack/events.jsonl', 0)", "EACCES"),
    "create another": ("open('/run/perstack/new', 'w')", "EACCES"),
    "link it": ("os.link('/run/perstack/events.jsonl', '/run/perstack/linked')", "EACCES"),
    "replace it": ("os.rename('/run/perstack/events.jsonl', '/run/perstack/events.jsonl')", "EACCES"),
    "remove it": ("os.unlink('/run/perstack/events.jsonl')", "EACCES"),
}
"""The state directory."""
BROKER: Mapping[str, tuple[str, str]] = {
    "the broker": ("socket.socket(socket.AF_UNIX).connect('/run/perstack/gate/in/broker.sock')", "EACCES|ENOENT"),
    "the broker by process 1": (
        "[socket.socket(socket.AF_UNIX).connect(f'/proc/1/fd/{fd}/broker.sock') for fd in range(64)]",
        "EACCES|ENOENT",
    ),
    "the gate": ("os.chmod('/run/perstack/gate', 0o711)", "EROFS|ENOENT"),
}

# Every descriptor and every device that a process could write to, in the words of this very job's events.
FORGE = """
import glob, json, os
common = {"timestamp": 1, "jobId": JOB, "runId": RUN, "attempt": 1, "expertKey": "one", "stepNumber": 1}
rest = {"type": "initializeRuntime", "runtimeVersion": "1", "expertName": "one", "experts": [], "model": "m",
        "maxRetries": 1, "timeout": 1}
lines = "".join(json.dumps({"id": "forged", "seq": seq, **common, **rest}) + "\\n" for seq in range(1, 80)).encode()
devices = [f"/dev/{name}" for name in ("stdout", "stderr", "tty", "console", "kmsg")]
for path in [*range(64), *glob.glob("/proc/*/fd/*"), *devices]:
    try:
        fd = path if isinstance(path, int) else os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.set_blocking(fd, False)
        os.write(fd, b"\\n" + lines)
    except OSError:
        pass
"""


@dataclass(frozen=True)
class Tried:
    """The results by attacker; what the Run wrote and recorded."""

    by: Mapping[str, Outcomes]
    outside: Outcomes
    result: Result
    results: list[str]
    stored: bytes


def _run(made: Project) -> Tried:
    seats = {
        "exec": {
            **{f"victim {name}": f"target = VICTIM['pid']\n{code}" for name, code in PROCESS.items()},
            **{f"runtime {name}": f"target = 1\n{code}" for name, code in PROCESS.items()},
            **{f"own {name}": f"target = child()\n{code}" for name, code in PROCESS.items()},
            "own port": "socket.create_server(('127.0.0.1', 0))",
            "victim port": "socket.create_server(('127.0.0.1', VICTIM['proxy']))",
        },
        "own": {},
    }
    seats["thief"] = {name: code for name, code in seats["exec"].items() if not name.startswith("own")}
    places = {f"victim {name}": code for name, (code, *_) in PLACES.items()}
    state = {name: code for name, (code, _) in {**STATE, **BROKER}.items()}
    seats = {seat: {**attacks, **places, **state, **OF_EXEC} for seat, attacks in seats.items()}
    load = "VICTIM = json.loads(Path('/workspace/victim.json').read_text())\n"
    files = {seat: ready(made, seat, {name: load + code for name, code in attacks.items()})
             for seat, attacks in seats.items()}  # fmt: skip
    forge = f"JOB, RUN = {JOB!r}, {identify(JOB, 'run')!r}{FORGE}"
    by_tool = {seat: {"attacks": attacks, "outcomes": outcomes} for seat, (attacks, outcomes) in files.items()}
    python = PYTHON[made.backend]
    replies = [
        use(_exec(python, "-I", "/workspace/attacker.py", *files["exec"])),
        use(("steal", by_tool["thief"])),
        use(("own", by_tool["own"])),
        use(_exec(python, "-I", "-c", forge)),
        use(_exec("sh", "-c", "sleep 60 & kill -9 -1; wait $!; echo ended $?")),
        use(("serve", {})),
        say("done"),
    ]
    (made.directory / "replies.json").write_text(json.dumps({"one": replies}))
    result = asyncio.run(made.run("one", "go", "--job-id", JOB, env=KEYS))
    assert result.code == 0, result.stderr
    results = [part.text for event in result.of(ResolveToolResults) for each in event.tool_results
               for part in each.result]  # fmt: skip
    stored = b"".join(path.read_bytes() for path in made.store.rglob("events.jsonl"))
    controls = outside(
        made.directory / "control", {name: f"target = child()\n{code}" for name, code in PROCESS.items()}
    )
    return Tried({seat: told(made, seat) for seat in seats}, controls, result, results, stored)


def _exec(program: str, *args: str) -> tuple[str, dict[str, Any]]:
    return "exec", {"command": program, "args": list(args), "env": {}, "cwd": ".", "stdout": True, "stderr": True}


@pytest.fixture(scope="module")
def tried(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    """One Run with a victim, a thief, and commands that attack too."""
    root = tmp_path_factory.mktemp("tools")
    made = made_project(root / "project", backend, TOML.replace("PYTHON", PYTHON[backend]), {})
    furnish(made, "victim.py", "thief.py")
    yield _run(made)
    nothing_left(root, backend)


@pytest.mark.behaviour("G13")
@pytest.mark.parametrize("seat", ["exec", "thief"])
@pytest.mark.parametrize("whose", ["victim", "runtime"])
@pytest.mark.parametrize("name", PROCESS)
def test_other_processes_cannot_be_reached(tried: Tried, name: str, whose: str, seat: str) -> None:
    """Those of a skill and of the runtime cannot; its own can, but for what seccomp forbids, and outside all can."""
    assert tried.outside[name] == WORKS, NO_CONTROL
    assert tried.by["exec"][f"own {name}"] == WORKS or name in BY_SECCOMP, NO_CONTROL
    assert_refused(tried.by[seat][f"{whose} {name}"], DENIED)


@pytest.mark.parametrize("seat", ["exec", "thief"])
@pytest.mark.parametrize("name", PLACES)
def test_nothing_that_a_skill_has_is_another_s(tried: Tried, name: str, seat: str) -> None:
    """Files, sockets and hosts belong to the skill, which itself can use them."""
    _, by_exec, by_skill = PLACES[name]
    assert re.search(THROUGH, tried.by["own"][f"victim {name}"]), NO_CONTROL
    assert_refused(tried.by[seat][f"victim {name}"], by_exec if seat == "exec" else by_skill)


def test_a_skill_s_proxy_cannot_be_taken_over(tried: Tried) -> None:
    """Its port is taken while the skill runs; other ports are for commands that serve something."""
    assert tried.by["exec"]["own port"] == WORKS, NO_CONTROL
    assert_refused(tried.by["exec"]["victim port"], "EADDRINUSE")
    assert_refused(tried.by["thief"]["victim port"], "EACCES")


@pytest.mark.parametrize("name", OF_EXEC)
def test_what_commands_share_is_no_skill_s(tried: Tried, name: str) -> None:
    """Their home, /tmp and shared memory belong to commands, which can use them."""
    assert tried.by["exec"][name] == WORKS, NO_CONTROL
    assert_refused(tried.by["thief"][name], "EACCES")


@pytest.mark.behaviour("G16")
@pytest.mark.parametrize("seat", ["exec", "thief", "own"])
@pytest.mark.parametrize("name", [*STATE, *BROKER])
def test_the_state_directory_is_closed_to_tools(tried: Tried, name: str, seat: str) -> None:
    """Spool and socket are there: a program that could write to them could forge the Run's events."""
    assert_refused(tried.by[seat][name], {**STATE, **BROKER}[name][1])


async def test_without_a_domain_the_state_directory_is_open(backend: str, tmp_path: Path) -> None:
    """The control: in a container that is the same but for Landlock, each of these attacks works."""
    open_place = docker_place if backend == "docker" else kubernetes_place
    async with asyncio.timeout(60), open_place(tmp_path) as place:
        spec = place.spec()
        listed, spool = spec.workspace / "attacks.json", spec.state / "events.jsonl"
        shutil.copy(attacker.__file__, spec.workspace)
        listed.write_text(json.dumps({name: code for name, (code, _) in STATE.items()}))
        spool.write_text("{}")
        os.chown(spool, place.user.uid, place.user.gid)
        program = (
            "import runpy, sys; sys.argv = ['', '/workspace/attacks.json', '/workspace/outcomes.json']; "
            "runpy.run_path('/workspace/attacker.py', run_name='__main__')"
        )
        async with place.connect(program) as backend_, backend_.launch(spec) as sandbox:
            ended = await sandbox.wait()
        assert ended.code == 0, ended.detail
        assert json.loads((spec.workspace / "outcomes.json").read_text()) == dict.fromkeys(STATE, WORKS)


@pytest.mark.behaviour("G16")
def test_no_descriptor_leads_to_the_events(tried: Tried) -> None:
    """Forged events that are written to every descriptor are neither shown nor stored."""
    assert r"\"id\": \"forged\"" in tried.results[3], "they were not written anywhere"
    assert [event for event in tried.result.events if event.id == "forged"] == []
    assert b'"id":"forged"' not in tried.stored.replace(b" ", b"")
    assert [event.seq for event in tried.result.events if event.seq] == list(range(1, _last(tried.result) + 1))


def _last(result: Result) -> int:
    return max(event.seq or 0 for event in result.events)


def test_a_command_that_kills_all_it_can_ends_only_commands(tried: Tried) -> None:
    """The skill answers after it, and the Run completes."""
    assert json.loads(tried.results[4])["output"].startswith("ended 137\n"), NO_CONTROL
    assert tried.results[5] == "served"
    assert tried.result.types[-1] == "completeRun"


@pytest.mark.behaviour("G13")
def test_no_skills_key_was_found(tried: Tried) -> None:
    """Both skills reported all that they found, and neither key is in it."""
    for key in KEYS.values():
        assert key.encode() not in tried.result.stdout + tried.stored
