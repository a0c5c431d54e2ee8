"""A broker of one job over the scripted provider, with a ledger in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.broker.run_records import RunRecords
from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.disk.directory import Inode
from orchestrator.egress.policy import EgressDecision
from orchestrator.egress.proxy import EgressNetwork
from orchestrator.providers import ModelRequest, OnDelta, Provider, ProviderSetting, open_provider
from orchestrator.sandbox.api import User
from orchestrator.sandbox.authority import Authority, SkillHosts
from orchestrator.wire.checkpoint import Checkpoint, DelegateTo, Status
from orchestrator.wire.expert import Expert, ExpertId
from orchestrator.wire.frames import Assigned, Attach, Generate
from orchestrator.wire.generation import Failure, GenerationRequest, Reply
from orchestrator.wire.identity import step_id
from orchestrator.wire.message import TextPart, ToolResult, UserMessage
from orchestrator.wire.run import Run
from orchestrator.wire.usage import Usage
from tests.support.link_client import SECONDS, Guest

COACH = ExpertId(key="coach", name="coach", version="1.0.0")
BEFORE = Usage(input_tokens=1, output_tokens=1, total_tokens=2)


def a_checkpoint(**changes: Any) -> Checkpoint:
    """A checkpoint of the Run below, by default of the step it starts with."""
    first = Checkpoint(
        id="c0",
        job_id="job",
        run_id="run",
        status=Status.PROCEEDING,
        step_number=3,
        messages=(),
        expert=COACH,
        usage=BEFORE,
    )
    number = changes.get("step_number", first.step_number)
    own = first if number == first.step_number else first.with_(id=step_id("run", number))
    return own.with_(**changes)


RUN = Run(
    job_id="job",
    run_id="run",
    expert=Expert(key="coach", name="coach", instruction="Coach."),
    checkpoint=a_checkpoint(),
    model="m",
    max_steps=10,
    max_retries=2,
    timeout_ms=5000,
    started_at=0,
)
AUTHORITY = Authority(
    expert_key="coach",
    delegates=frozenset({"trainer"}),
    model="m",
    reasoning_tokens=0,
    timeout_seconds=SECONDS,
    generations=0,
    max_generations=5,
    hosts={"credential": SkillHosts("web", ("api.example.com", "*.example.org"))},
)


USED = Usage(input_tokens=5, output_tokens=2, total_tokens=7)
"""What each call of the model takes."""


def delegation(key: str) -> DelegateTo:
    """A call to another Expert."""
    return DelegateTo(
        expert=ExpertId(key=key, name=key, version="1.0.0"), tool_call_id="t1", tool_name=key, query="Do it."
    )


def generate(number: int = 0, step: int = 1) -> Generate:
    """A model call."""
    hello = UserMessage(id="m", contents=(TextPart(id="p", text="Hello"),))
    request = GenerationRequest(id=f"{step}/{number}", number=number, messages=(hello,))
    return Generate(id=request.id, request=request)


@dataclass
class Books:
    """A ledger in memory, which can be read."""

    checkpoints: list[Checkpoint] = field(default_factory=list)
    results: list[tuple[str, ToolResult]] = field(default_factory=list)
    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)

    async def keep_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep it."""
        self.checkpoints.append(checkpoint)

    async def keep_result(self, run_id: str, result: ToolResult) -> None:
        """Keep it."""
        self.results.append((run_id, result))

    async def keep_reply(self, run_id: str, request_id: str, reply: Reply) -> None:
        """Keep it."""
        self.replies[run_id, request_id] = reply

    async def reply(self, run_id: str, request_id: str) -> Reply | None:
        """Find it."""
        return self.replies.get((run_id, request_id))

    @property
    def run_records(self) -> RunRecords:
        """As the broker takes it."""
        return RunRecords(self.keep_checkpoint, self.keep_result, self.keep_reply, self.reply)


@dataclass
class Counted:
    """A provider that counts the calls made of the one behind it."""

    behind: Provider
    calls: list[int]
    called: asyncio.Event

    async def generate(self, request: ModelRequest, on_delta: OnDelta) -> Reply | Failure:
        """Count and pass on."""
        self.calls.append(request.generation)
        self.called.set()
        return await self.behind.generate(request, on_delta)


@dataclass
class BrokerFixture:
    """Everything around a broker, and what it did. `listener` leads to its socket past the socket directory."""

    directory: Path
    listener: Path
    replies: Sequence[Mapping[str, Any]] = ({"text": "Hi", "usage": {"inputTokens": 5, "outputTokens": 2}},)
    network: EgressNetwork = field(default_factory=EgressNetwork)
    authority: Authority = AUTHORITY
    books: Books = field(default_factory=Books)
    model_calls: list[int] = field(default_factory=list)
    model_called: asyncio.Event = field(default_factory=asyncio.Event)
    accesses: list[EgressDecision] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """The state directory of the only Sandbox."""
        return self.directory

    def allow(self, **changes: Any) -> None:
        """Change what the Run may do."""
        self.authority = replace(self.authority, **changes)

    @asynccontextmanager
    async def provider(self) -> AsyncIterator[Provider]:
        """The scripted provider, counted."""
        (self.directory / "replies.json").write_text(json.dumps({"coach": self.replies}))
        self.opened.append("opened")
        async with open_provider(ProviderSetting("scripted", {}, {}, self.directory)) as provider:
            yield Counted(provider, self.model_calls, self.model_called)
        self.opened.append("closed")

    def broker(self, provider: Callable[[], AbstractAsyncContextManager[Provider]] | None = None) -> Broker:
        """A broker in this world."""
        return Broker(provider or self.provider, self.books.run_records, self.accesses.append, self.network)

    @asynccontextmanager
    async def session(self, workspace: Inode | None = None) -> AsyncIterator[Session]:
        """A session that waits for its Sandbox, which is to have this workspace."""
        async with (
            asyncio.timeout(2 * SECONDS),
            self.broker() as broker,
            broker.listen("s1", self.state, User(65532, 65532), workspace) as session,
        ):
            yield session

    @asynccontextmanager
    async def running(self, run: Run = RUN) -> AsyncIterator[tuple[Session, Guest, str]]:
        """A session whose Sandbox has its Run: the session, the Sandbox's link, the session key."""
        async with self.session() as session, await Guest.connect(self.listener) as guest:
            guest.send(Attach())
            await session.ready()
            await session.assign(run, self.authority)
            yield session, guest, (await guest.read(Assigned)).session_key
