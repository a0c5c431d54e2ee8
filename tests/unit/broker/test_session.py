"""Who may connect, what the Sandbox gets, and what is not believed."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.broker.assignment import PriorState
from orchestrator.disk.directory import inode_of
from orchestrator.errors import BackendError, ConfigError, StoreError
from orchestrator.providers import ProviderSetting, open_provider
from orchestrator.sandbox.api import LinkKind, User
from orchestrator.wire.facts import Inodes
from orchestrator.wire.frames import (
    Assigned,
    Attach,
    Failed,
    Generated,
    KeepCheckpoint,
    Kept,
    Reattach,
    Refused,
    Tunnel,
)
from orchestrator.wire.generation import Failure, Reply
from orchestrator.wire.layout import SOCKET_DIRECTORY_NAME, SOCKET_NAME
from orchestrator.wire.usage import Usage
from tests.support.broker_fixture import AUTHORITY, BEFORE, RUN, USED, BrokerFixture, a_checkpoint, generate
from tests.support.link_client import SECONDS, Guest


async def counted(world: BrokerFixture, guest: Guest) -> Usage:
    """The tokens of the conversation as the host counts them: it writes them into each checkpoint."""
    assert await guest.ask(KeepCheckpoint(id="counted", checkpoint=a_checkpoint())) == Kept(id="counted")
    return world.books.checkpoints[-1].usage


async def test_socket_belongs_to_the_sandbox_and_goes_with_the_session(world: BrokerFixture) -> None:
    """The socket exists before any connection, for its user only, and is removed afterwards."""
    path = world.state / SOCKET_DIRECTORY_NAME / SOCKET_NAME
    async with world.session():
        found = path.stat()
        assert oct(found.st_mode & 0o7777) == "0o600"
        assert found.st_uid == (65532 if os.geteuid() == 0 else os.geteuid())
    assert not path.exists()


async def test_the_socket_s_mode_needs_no_umask(world: BrokerFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is private for any umask, and the umask, which is the whole process's, is not changed."""
    before = os.umask(0)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", lambda mask: pytest.fail(f"the umask was set to {mask:o}"))
            async with world.session():
                mode = (world.state / SOCKET_DIRECTORY_NAME / SOCKET_NAME).stat().st_mode
    finally:
        os.umask(before)
    assert oct(mode & 0o7777) == "0o600"


async def test_the_socket_directory_is_sealed_after_the_sandbox_has_connected(world: BrokerFixture) -> None:
    """The directory is open until the Sandbox has connected and is sealed before the session is ready."""

    def mode() -> str:
        return oct((world.state / SOCKET_DIRECTORY_NAME).stat().st_mode & 0o7777)

    async with world.session() as session, await Guest.connect(world.listener) as guest:
        assert mode() == "0o711"
        guest.send(Attach())
        await session.ready()
        assert mode() == "0o0"
        await session.assign(RUN, AUTHORITY)
        key = (await guest.read(Assigned)).session_key
        (world.state / SOCKET_DIRECTORY_NAME).chmod(0o711)
        async with await Guest.connect(world.listener) as again:
            assert await again.open(Reattach(session_key=key)) is None
        assert mode() == "0o0"


async def test_too_long_a_path_is_refused(world: BrokerFixture) -> None:
    """A path too long for a socket is refused in one clear sentence."""
    state = world.directory / ("d" * 100)
    state.mkdir()
    async with world.broker() as broker:
        with pytest.raises(BackendError, match="choose a shorter state directory"):
            async with broker.listen("s1", state, User(65532, 65532)):
                pass


async def test_missing_directory_is_refused(world: BrokerFixture) -> None:
    """A socket that cannot be created is refused in one clear sentence."""
    async with world.broker() as broker:
        with pytest.raises(BackendError, match="could not be made: No such file or directory"):
            async with broker.listen("s1", Path("/nowhere"), User(65532, 65532)):
                pass


async def test_first_connection_gets_the_run_and_a_key(world: BrokerFixture) -> None:
    """The Run arrives whole, with a fresh key of 256 bits."""
    async with world.session() as session, await Guest.connect(world.listener) as guest:
        guest.send(Attach())
        await session.ready()
        await session.assign(RUN, AUTHORITY)
        assigned = await guest.read(Assigned)
    assert assigned == Assigned(run=RUN, session_key=assigned.session_key)
    assert len(bytes.fromhex(assigned.session_key)) == 32


async def test_second_run_is_never_given(world: BrokerFixture) -> None:
    """A session has one Run."""
    async with world.running() as (session, _, _):
        with pytest.raises(RuntimeError):
            await session.assign(RUN, AUTHORITY)


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        (Attach(), "this Sandbox is attached already"),
        (Reattach(session_key="0" * 64), "the session key is not right"),
        (Reattach(session_key="ключ"), "the session key is not right"),
        (
            Tunnel(session_key="0" * 64, credential="credential", host="api.example.com", port=443),
            "the session key is not right",
        ),
    ],
)
async def test_strangers_are_refused(world: BrokerFixture, opening: Attach | Reattach | Tunnel, reason: str) -> None:
    """After the first connection, others are refused without the key, and the Sandbox's own link stays open."""
    async with world.running() as (_, guest, _):
        async with await Guest.connect(world.listener) as stranger:
            assert await stranger.open(opening) == reason
            assert await stranger.ended() == b""
        assert isinstance(await guest.ask(generate()), Generated)


async def test_the_first_to_connect_after_a_restart_needs_the_key(world: BrokerFixture) -> None:
    """A process that the Expert started is refused; the Sandbox itself reattaches and has its Run."""
    async with world.session() as session:
        session.expect(RUN, AUTHORITY, PriorState(BEFORE), "key", lambda: False)
        async with await Guest.connect(world.listener) as stranger:
            assert await stranger.open(Attach()) == "this Sandbox has begun its Run, and comes back with the key to it"
            assert await stranger.ended() == b""
        async with await Guest.connect(world.listener) as guest:
            assert await guest.open(Reattach(session_key="key")) is None
            assert isinstance(await guest.ask(generate()), Generated)
            async with await Guest.connect(world.listener) as stranger:
                assert await stranger.open(Attach()) == "this Sandbox is attached already"


async def test_a_run_that_did_not_arrive_before_a_restart_is_given_after_it(world: BrokerFixture) -> None:
    """A Sandbox that has begun no work needs no key, which it never received."""
    async with world.session() as session:
        session.expect(RUN, AUTHORITY, PriorState(BEFORE), "key", lambda: True)
        async with await Guest.connect(world.listener) as guest:
            guest.send(Attach())
            assert await guest.read(Assigned) == Assigned(run=RUN, session_key="key")


async def test_a_run_that_was_lost_with_a_stream_is_given_again(world: BrokerFixture) -> None:
    """The link broke on the Run's way to the Sandbox, so it attaches again; once it has begun, no connection may."""
    async with (
        asyncio.timeout(SECONDS),
        world.broker() as broker,
        broker.listen("s1", world.state, User(65532, 65532), link=LinkKind.STREAM) as session,
        await asyncio.start_unix_server(session.accept, world.listener),
    ):
        async with await Guest.connect(world.listener) as lost:
            lost.send(Attach())
            await session.ready()
            await session.assign(RUN, AUTHORITY, key="key")
        async with await Guest.connect(world.listener) as guest:
            guest.send(Attach())
            assert await guest.read(Assigned) == Assigned(run=RUN, session_key="key")
            assert isinstance(await guest.ask(generate()), Generated)
            async with await Guest.connect(world.listener) as stranger:
                assert await stranger.open(Attach()) == "this Sandbox is attached already"


async def test_no_key_is_right_before_a_run_is_given(world: BrokerFixture) -> None:
    """An empty key is refused while no key exists."""
    async with world.session(), await Guest.connect(world.listener) as guest:
        assert await guest.open(Reattach(session_key="")) == "the session key is not right"


@pytest.mark.parametrize("rubbish", [b"\x00\x00\x00\x02{}", b"\x00\x10\x00\x01", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_bad_frame_ends_its_connection_only(world: BrokerFixture, rubbish: bytes) -> None:
    """Invalid bytes, or a first frame over 64 KiB, close only that connection."""
    async with world.running() as (_, guest, _):
        async with await Guest.connect(world.listener) as stranger:
            stranger.writer.write(rubbish)
            assert await stranger.ended() == b""
        assert isinstance(await guest.ask(generate()), Generated)


async def test_reply_is_kept_before_it_is_delivered_and_counted_here(world: BrokerFixture) -> None:
    """The reply is in the ledger, and its tokens and calls are counted by the host."""
    async with world.running() as (session, guest, _):
        answer = await guest.ask(generate())
        assert isinstance(answer, Generated)
        assert world.books.replies == {("run", "1/0"): answer.reply}
        assert session.generations == 1
        assert await counted(world, guest) == BEFORE + USED


async def test_pieces_arrive_before_the_reply(world: BrokerFixture) -> None:
    """The pieces of a reply join to its text."""
    world.replies = ({"text": "a" * 100, "reasoning": "b" * 100},)
    async with world.running() as (_, guest, _):
        guest.send(generate())
        texts = {"text": "", "reasoning": ""}
        while (frame := (await guest.read(dict[str, Any])))["type"] == "delta":
            texts[frame["kind"]] += frame["text"]
    assert frame["type"] == "generated"
    assert texts == {"text": "a" * 100, "reasoning": "b" * 100}


async def test_a_call_repeated_after_a_reconnect_is_made_once(world: BrokerFixture) -> None:
    """A repeated call joins the one in flight; a later one is answered from the ledger."""
    world.replies = ({"text": "Hi", "usage": {"inputTokens": 5, "outputTokens": 2}, "delayMs": 100},)
    async with world.running() as (session, guest, key):
        guest.send(generate())
        await world.model_called.wait()
        async with await Guest.connect(world.listener) as again:
            assert await again.open(Reattach(session_key=key)) is None
            assert await guest.ended() == b""
            first = await again.ask(generate())
            second = await again.ask(generate())
            assert await counted(world, again) == BEFORE + USED
        assert first == second == Generated(id="1/0", reply=Reply(text="Hi", usage=USED))
        assert (world.model_calls, session.generations) == ([0], 1)


async def test_a_new_attempt_gets_the_replies_of_the_old_one(world: BrokerFixture) -> None:
    """A reply in the ledger is delivered and counted without a model call."""
    world.books.replies["run", "1/0"] = Reply(text="Earlier", usage=USED)
    async with world.running() as (session, guest, _):
        assert await guest.ask(generate()) == Generated(id="1/0", reply=Reply(text="Earlier", usage=USED))
        assert (world.model_calls, session.generations) == ([], 1)
        assert await counted(world, guest) == BEFORE + USED


async def test_a_failure_is_delivered_and_not_kept(world: BrokerFixture) -> None:
    """A failure is not stored; a repeated call of the same session is not made again."""
    world.replies = ({"error": {"name": "RateLimitError", "message": "slow down", "isRetryable": True}},)
    failure = Failure(name="RateLimitError", message="slow down", is_retryable=True)
    async with world.running() as (_, guest, _):
        assert await guest.ask(generate()) == Failed(id="1/0", failure=failure)
        assert await guest.ask(generate()) == Failed(id="1/0", failure=failure)
    assert (world.books.replies, world.model_calls) == ({}, [0])


async def test_a_model_that_does_not_answer_in_time_is_a_failure(world: BrokerFixture) -> None:
    """The host's time limit applies, and the message has its milliseconds."""
    world.replies = ({"text": "late", "delayMs": 60_000},)
    world.allow(timeout_seconds=0.02)
    async with world.running() as (_, guest, _):
        answer = await guest.ask(generate())
    message = "model 'm' did not answer within 20 ms"
    assert answer == Failed(id="1/0", failure=Failure(name="Timeout", message=message, is_retryable=True))


async def test_model_calls_are_limited(world: BrokerFixture) -> None:
    """A runaway container cannot spend without end."""
    world.allow(max_generations=1)
    async with world.running() as (session, guest, _):
        assert isinstance(await guest.ask(generate(0)), Generated)
        message = "Expert 'coach' asked for more than 1 model calls in one Run"
        failure = Failure(name="TooManyGenerations", message=message)
        assert await guest.ask(generate(0, step=2)) == Failed(id="2/0", failure=failure)
        assert await guest.ask(generate(7)) == Failed(id="1/7", failure=failure)
        assert isinstance(await guest.ask(generate(0)), Generated)
        assert session.generations == 1
    assert world.model_calls == [0]


async def test_generation_continues_where_the_conversation_stopped(world: BrokerFixture) -> None:
    """The model calls are counted over all Runs of the conversation."""
    world.replies = ({"text": "one"}, {"text": "two"})
    world.allow(generations=1)
    async with world.running() as (_, guest, _):
        assert await guest.ask(generate()) == Generated(id="1/0", reply=Reply(text="two"))


async def test_two_model_calls_at_once_break_a_rule(world: BrokerFixture) -> None:
    """A second call is refused while one is in flight."""
    world.replies = ({"text": "slow", "delayMs": 60_000},)
    async with world.running() as (session, guest, _):
        guest.send(generate(0))
        reason = "model call '1/1' came while '1/0' was not answered yet"
        assert await guest.ask(generate(1)) == Refused(id="1/1", reason=reason)
        assert session.violation == reason


async def test_revoking_ends_everything(world: BrokerFixture) -> None:
    """Links are closed, a model call in flight ends, and the right key opens no new connection."""
    world.replies = ({"text": "slow", "delayMs": 60_000},)
    async with world.running() as (session, guest, key):
        guest.send(generate())
        await world.model_called.wait()
        session.revoke()
        assert await guest.ended() == b""
        await session.ended()
        async with await Guest.connect(world.listener) as again:
            again.send(Reattach(session_key=key))
            assert await again.ended() == b""


async def test_leaving_ends_everything(world: BrokerFixture) -> None:
    """Leaving a session ends its link and its model call while the job continues."""
    world.replies = ({"text": "slow", "delayMs": 60_000},)
    async with asyncio.timeout(SECONDS), world.broker() as broker:
        await broker.prepare()
        before = asyncio.all_tasks()
        async with broker.listen("s1", world.state, User(65532, 65532)) as session:
            guest = await Guest.connect(world.listener)
            guest.send(Attach())
            await session.ready()
            await session.assign(RUN, AUTHORITY)
            await guest.read(Assigned)
            guest.send(generate())
            await world.model_called.wait()
        assert asyncio.all_tasks() == before
        async with guest:
            assert await guest.ended() == b""


async def test_provider_is_opened_once_and_closed(world: BrokerFixture) -> None:
    """Preparing and calling share one open provider."""
    async with world.broker() as broker, broker.listen("s1", world.state, User(65532, 65532)):
        await broker.prepare()
        await broker.prepare()
    assert world.opened == ["opened", "closed"]


async def test_a_provider_that_cannot_be_opened_is_reported_when_preparing(world: BrokerFixture) -> None:
    """The provider's error is raised without a group."""
    broken = ProviderSetting("scripted", {"replies": "absent.json"}, {}, world.directory)
    async with world.broker(lambda: open_provider(broken)) as broker:
        with pytest.raises(ConfigError, match=r"absent\.json"):
            await broker.prepare()


async def test_a_provider_that_cannot_be_opened_ends_the_job(world: BrokerFixture) -> None:
    """Without `prepare`, a call ends the job with the provider's error, not with a group."""
    broken = ProviderSetting("scripted", {"replies": "absent.json"}, {}, world.directory)

    async def ask() -> None:
        async with (
            world.broker(lambda: open_provider(broken)) as broker,
            broker.listen("s1", world.state, User(65532, 65532)) as session,
            await Guest.connect(world.listener) as guest,
        ):
            guest.send(Attach())
            await session.ready()
            await session.assign(RUN, AUTHORITY)
            guest.send(generate())
            await asyncio.Event().wait()

    with pytest.raises(ConfigError, match=r"absent\.json") as raised:
        await ask()
    assert isinstance(raised.value.__cause__, FileNotFoundError)


async def test_a_store_that_fails_ends_the_job(world: BrokerFixture) -> None:
    """A checkpoint that cannot be stored is not acknowledged: the job ends with the store's own error."""

    async def full(_: object) -> None:
        message = "the disk is full"
        raise StoreError(message)

    world.books.keep_checkpoint = full  # type: ignore[method-assign,assignment]  # a ledger that fails

    async def keep() -> None:
        async with world.running() as (_, guest, _):
            guest.send(KeepCheckpoint(id="k", checkpoint=a_checkpoint()))
            await asyncio.Event().wait()

    with pytest.raises(StoreError, match="the disk is full"):
        await keep()


async def test_an_error_of_the_block_comes_out_bare(world: BrokerFixture) -> None:
    """The broker does not wrap an error of the block."""

    async def fail() -> None:
        async with world.running():
            message = "mine"
            raise BackendError(message) from cause

    cause = OSError()
    with pytest.raises(BackendError, match="mine") as raised:
        await fail()
    assert raised.value.__cause__ is cause


@pytest.mark.parametrize("again", [False, True])
async def test_a_sandbox_with_another_workspace_is_given_nothing(world: BrokerFixture, *, again: bool) -> None:
    """It is cut off and not admitted again, whether or not its Run is known."""
    state, there, other = inode_of(world.state.stat()), (1, 2), (1, 3)
    async with world.session(there) as session:
        if again:
            session.expect(RUN, AUTHORITY, PriorState(), "0" * 64, lambda: True)
        async with await Guest.connect(world.listener) as guest:
            guest.send(Attach(inodes=Inodes(state=state, workspace=other)))
            await session.ready()
            assert await guest.ended() == b""
        violation = "its workspace is not the directory that was checked: it was replaced by another"
        assert session.violation == violation
        async with await Guest.connect(world.listener) as later:
            later.send(Attach(inodes=Inodes(state=state, workspace=there)))
            assert await later.ended() == b""
    assert world.model_calls == []


@pytest.mark.parametrize(
    "told",
    [
        lambda state: Inodes(state=state, workspace=(1, 2)),
        lambda state: Inodes(state=(state[0], state[1] + 1), workspace=(1, 3)),
        lambda _: None,
    ],
    ids=["the same", "of an engine that shows other numbers", "nothing"],
)
async def test_others_are_given_their_run(
    world: BrokerFixture, told: Callable[[tuple[int, int]], Inodes | None]
) -> None:
    """As a control: if the state directory's inode differs inside as well, nothing is compared."""
    async with world.session((1, 2)) as session, await Guest.connect(world.listener) as guest:
        guest.send(Attach(inodes=told(inode_of(world.state.stat()))))
        await session.ready()
        assert session.violation is None
        await session.assign(RUN, AUTHORITY)
        assert (await guest.read(Assigned)).run == RUN
