"""A project as a user has one: a directory with perstack.toml, a script of replies, a workspace; and the command."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.plan.make_job import instance_of
from orchestrator.pool.state_directories import state_prefix
from orchestrator.sandbox.api import STATE_ROOT
from orchestrator.wire.event import Event, StartRun, TerminalEvent
from orchestrator.wire.line import decode
from tests.support import cluster, stand_ins

COMMAND = (str(Path(sys.executable).with_name("perstack-orch")),)
"""The command line as `perstack-orch` runs it."""

_IN_IMAGE = "/opt/perstack/bin/python"
PYTHON = {"process": sys.executable, "docker": _IN_IMAGE, "kubernetes": _IN_IMAGE, "submitted": _IN_IMAGE}
"""An interpreter that commands of a Sandbox can start, by place: that on the PATH may be a script around another."""

ONE = '[experts.one]\ninstruction = "Do it."\n'
"""The smallest project: an Expert that may use the built-in tools."""

TEAM = """
[experts.boss]
instruction = "Lead."
delegates = ["left", "right"]
[experts.left]
instruction = "Left."
[experts.right]
instruction = "Right."
"""
"""A coordinator with two delegates."""

ASKING = f"""{ONE}[experts.one.skills.user]
type = "interactiveSkill"
[experts.one.skills.user.tools.confirm]
description = "Ask the user."
inputJsonSchema = '{{"type":"object","properties":{{"q":{{"type":"string"}}}},"required":["q"]}}'
"""
"""An Expert that may ask the user."""

FROM_HERE = ("PATH", "HOME", "XDG_STATE_HOME", "LANG", *stand_ins.VARIABLES, "PERSTACK_RUNTIME_IMAGE")
"""All that a command under test takes from this environment."""

SECONDS = 120


def say(text: str) -> dict[str, Any]:
    """A reply of text only, which completes a Run."""
    return {"text": text}


def use(*calls: tuple[str, Mapping[str, Any]], text: str = "") -> dict[str, Any]:
    """A reply that calls tools, each a name and its arguments."""
    return {"text": text, "toolCalls": [{"name": name, "args": dict(args)} for name, args in calls]}


def ask(delegate: str, query: str) -> tuple[str, dict[str, str]]:
    """A call to a delegate."""
    return (delegate, {"query": query})


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left: exit code, what it wrote."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def events(self) -> list[Event]:
        """Every line of stdout, read strictly."""
        return [decode(line) for line in self.stdout.splitlines()]

    @property
    def types(self) -> list[str]:
        """The types of all events in order."""
        return [event.type for event in self.events]

    @property
    def control(self) -> list[tuple[str, str]]:
        """How Runs began and ended, in order: type and Expert."""
        kinds = (StartRun, *get_args(TerminalEvent))
        return [(event.type, event.expert_key) for event in self.events if isinstance(event, kinds)]

    def of(self, kind: type[Any]) -> list[Any]:
        """All events of one type."""
        return [event for event in self.events if isinstance(event, kind)]


@dataclass(frozen=True, slots=True)
class Project:
    """A directory with an Expert in it. `prefix` are words that go before every command."""

    directory: Path
    backend: str
    prefix: tuple[str, ...] = ()

    @classmethod
    def make(cls, directory: Path, backend: str, toml: str, replies: Mapping[str, Sequence[Any]]) -> "Project":
        """Write the files of a project whose model is scripted."""
        directory.mkdir(parents=True, exist_ok=True)
        provider = '[provider]\nproviderName = "scripted"\n'
        (directory / "perstack.toml").write_text(provider + toml)
        made = cls(directory, backend)
        made.script(replies)
        return made

    def script(self, replies: Mapping[str, Sequence[Any]]) -> None:
        """Write what the model replies from now on."""
        (self.directory / "replies.json").write_text(json.dumps(replies))

    @property
    def workspace(self) -> Path:
        """Where the Experts' files are."""
        return cluster.claim_of(self.directory).root / "ws" if self.in_cluster else self.directory / "workspace"

    @property
    def in_cluster(self) -> bool:
        """Whether its Sandboxes are Pods."""
        return self.backend == "kubernetes"

    @property
    def environment(self) -> dict[str, str]:
        """What the command finds in its environment."""
        clean = {name: os.environ[name] for name in FROM_HERE if name in os.environ}
        return clean | (cluster.environment(cluster.claim_of(self.directory)) if self.in_cluster else {})

    @property
    def instance(self) -> str:
        """What its Sandboxes are labelled with."""
        if not self.in_cluster:
            return instance_of(self.store)
        claim = cluster.claim_of(self.directory)
        return instance_of(self.store, ClusterSetting(cluster.shared_namespace(), claim, ()))

    @property
    def states(self) -> Path:
        """What the paths of its jobs' state directories begin with."""
        root = cluster.claim_of(self.directory).root / "state" if self.in_cluster else STATE_ROOT
        return root / state_prefix(self.instance)

    @property
    def store(self) -> Path:
        """Where the records are."""
        return self.directory / "perstack"

    def files(self) -> list[bytes]:
        """The content of every file below the project except locks, which name their last holder."""
        found = sorted(path for path in self.directory.rglob("*") if path.is_file() and path.name != "lock")
        return [path.read_bytes() for path in found]

    async def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> asyncio.subprocess.Process:
        """Start the command without waiting for it; with `stdin` it reads that from a pipe."""
        process = await asyncio.create_subprocess_exec(
            *self.prefix,
            *COMMAND,
            *arguments,
            cwd=self.directory,
            env=self.environment | dict(env or {}),
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
        )
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin.encode())
            process.stdin.close()
        return process

    async def command(self, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        """Run any command in the project's directory to its end."""
        return await ended(await self.start(*arguments, env=env))

    async def run(self, expert: str, query: str, *options: str, env: Mapping[str, str] | None = None) -> Result:
        """Run an Expert to its end."""
        return await self.command("run", "--backend", self.backend, *options, expert, "--", query, env=env)


def refused(result: Result, code: int, *words: str) -> None:
    """Check that a command ended with `code` before it did anything, and printed `words` without a traceback."""
    assert result.code == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == b""
    for word in words:
        assert word in result.stderr


Make = Callable[[str, Mapping[str, Sequence[Any]]], Project]
"""Makes a project of Experts, in TOML, and of replies by Expert."""


async def ended(process: asyncio.subprocess.Process) -> Result:
    """Wait for a started command; one that hangs is stopped as a user would, and fails the test."""
    try:
        async with asyncio.timeout(SECONDS):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        process.send_signal(signal.SIGINT)
        stdout, stderr = await process.communicate()
        message = f"the command hung; it wrote:\n{stdout.decode()}\n{stderr.decode()}"
        raise AssertionError(message) from None
    return Result(process.returncode or 0, stdout, stderr.decode())
