"""Whole jobs over the fake backend: outcome, record, errors, and that nothing is left of them."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import pytest

from orchestrator.errors import BackendError, BackendUnavailableError, ConfigError, StoreError
from orchestrator.jobs import runner
from orchestrator.jobs.resume import Resume
from orchestrator.plan.run_plan import first, plan, sandbox_spec
from orchestrator.plan.validation import digests
from orchestrator.pool.prewarm import WarmLimit
from orchestrator.pool.state_directories import directory_of
from orchestrator.sandbox.api import Exit, Reason, SandboxSpec
from orchestrator.sandbox.keys import session_key
from orchestrator.sandbox.naming import labels, sandbox_name
from orchestrator.sandbox.socket_directory import make_socket_directory
from orchestrator.store import Store
from orchestrator.testing.fake_backend import FakeBackend
from orchestrator.testing.scripted_sandbox import Guest, by_expert
from orchestrator.wire.checkpoint import RunError, Status
from orchestrator.wire.event import ProxyAccess
from orchestrator.wire.identity import AttemptRef
from orchestrator.wire.job_record import JobRecord, JobStatus
from orchestrator.wire.layout import SPOOL_NAME
from tests.support import scheduling
from tests.support.scheduling import JOB_ID, Worked, forever, idle, kinds, settled, turns, whole_job

NOTHING: tuple[list[str], list[str]] = ([], [])
ON_FIRE = "the engine is on fire; put it out"


async def fail_to_start(_: SandboxSpec) -> None:
    """Raise what a backend raises."""
    raise BackendError(ON_FIRE)


async def test_a_job_that_completes_leaves_its_outcome_and_nothing_else() -> None:
    """The text is the coordinator's last; the record has the end and its time."""
    async with whole_job() as one:
        events = await one.to_the_end()
        assert events.outcome is not None
        assert (events.outcome.status, events.outcome.text, events.outcome.error) == (JobStatus.COMPLETED, "done", None)
        assert events.outcome.receipt.containers == 1
        assert kinds(one.events) == ["initializeRuntime", "completeRun"]
        assert [event.position for event in one.events] == [1, 2]
        record = one.record
        assert record is not None
        assert (record.status, record.total_steps) == (JobStatus.COMPLETED, 1)
        assert record.finished_at is not None
        assert one.left() == NOTHING


async def test_a_coordinator_has_spares_for_its_delegates() -> None:
    """They are launched once the first runs; unused ones are removed with the job."""
    spared = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.begin()
        await spared.wait()
        await guest.complete()

    async with whole_job(script, prewarm=2) as one, one.running() as events:
        await one.backend.until(lambda: len(one.backend.alive) == 3)
        spared.set()
        async for _ in events:
            pass
        await one.backend.until(lambda: one.backend.left == [])
    assert one.backend.most_alive == 3


async def test_what_the_user_wants_warm_is_no_part_of_what_jobs_share() -> None:
    """`--prewarm` is a separate budget."""
    spared = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.begin()
        await spared.wait()
        await guest.complete()

    async with whole_job(script, prewarm=1) as one, one.running(warm_limit=WarmLimit(0)) as events:
        await one.backend.until(lambda: len(one.backend.alive) == 2)
        spared.set()
        async for _ in events:
            pass
    assert one.backend.most_alive == 2


async def test_as_many_sandboxes_work_at_once_as_the_job_has_slots() -> None:
    """Here one: the second delegate begins after the first."""
    working, most = 0, 0
    clock = asyncio.get_running_loop().time

    async def boss(guest: Guest) -> None:
        if guest.run.checkpoint.partial_tool_results:
            await guest.complete()
        else:
            await guest.delegate(("left", "do"), ("right", "do"))

    async def delegate(guest: Guest) -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        begun = clock()
        # Long enough for the other to begin, if it is allowed.
        await turns(lambda: most > 1 or clock() > begun + 0.1)
        working -= 1
        await guest.complete()

    async with whole_job(by_expert({"boss": boss, "left": delegate, "right": delegate}), slots=1) as one:
        await one.to_the_end()
        assert most == 1


async def test_jobs_share_what_they_may_keep_warm() -> None:
    """If the budget is spent, a job has its first Sandbox and no other."""
    async with whole_job() as one:
        await one.to_the_end(warm_limit=WarmLimit(0))
        assert one.backend.most_alive == 1


STOPS = [
    (Status.STOPPED_BY_ERROR, JobStatus.STOPPED_BY_ERROR, "it is too hard"),
    (Status.STOPPED_BY_EXCEEDED_MAX_STEPS, JobStatus.STOPPED_BY_MAX_STEPS, None),
    (Status.STOPPED_BY_INTERACTIVE_TOOL, JobStatus.STOPPED_BY_INTERACTIVE_TOOL, None),
]


@pytest.mark.parametrize(("status", "expected", "error"), STOPS, ids=[stop[0] for stop in STOPS])
async def test_an_expert_that_stops_is_an_outcome_and_no_error(
    status: Status, expected: JobStatus, error: str | None
) -> None:
    """The job's status follows that of its coordinator, and there is no text."""

    async def script(guest: Guest) -> None:
        run = await guest.begin()
        why = RunError(name="Refused", message="it is too hard") if error else None
        await guest.keep(run.checkpoint.with_(status=status, error=why))

    async with whole_job(script) as one:
        outcome = (await one.to_the_end()).outcome
        assert outcome is not None
        assert (outcome.status, outcome.text, outcome.error) == (expected, None, error)
        assert one.record is not None
        assert one.record.status is expected


async def test_secrets_are_hidden_in_the_outcome() -> None:
    """An Expert's text may contain values that it was given."""

    async def script(guest: Guest) -> None:
        await guest.begin()
        await guest.complete("it is canary-canary")

    async with whole_job(script, secrets=("canary-canary",)) as one:
        outcome = (await one.to_the_end()).outcome
        assert outcome is not None
        assert outcome.text is not None
        assert "canary" not in outcome.text


async def test_secrets_are_hidden_in_an_error_of_the_outcome() -> None:
    """An error may contain values of an Expert too."""

    async def script(guest: Guest) -> None:
        await guest.begin()
        await guest.fail(RunError(name="Refused", message="no canary-canary"))

    async with whole_job(script, secrets=("canary-canary",)) as one:
        outcome = (await one.to_the_end()).outcome
        assert outcome is not None
        assert outcome.error == "no [masked]"


async def test_a_failure_of_the_platform_is_raised_as_one_sentence() -> None:
    """It is not a group of errors; the record has the job as stopped, and nothing is left."""
    async with whole_job() as one:
        one.backend.starting = fail_to_start
        with pytest.raises(BackendError) as raised:
            await one.to_the_end()
        assert (type(raised.value), str(raised.value)) == (BackendError, ON_FIRE)
        assert one.record is not None
        assert one.record.status is JobStatus.STOPPED_BY_ERROR
        assert one.record.finished_at is not None
        assert one.left() == NOTHING


async def test_a_failure_below_several_groups_is_one_sentence_too() -> None:
    """Here it is in a delegate, in parallel with another one."""

    async def boss(guest: Guest) -> None:
        await guest.delegate(("left", "do"), ("right", "do"))

    async def delegate(_: Guest) -> None:
        await asyncio.Event().wait()

    async with whole_job(by_expert({"boss": boss, "left": delegate, "right": delegate}), prewarm=0) as one:

        async def starting(_: SandboxSpec) -> None:
            if len(one.backend.launched) == 3:
                raise BackendError(ON_FIRE)

        one.backend.starting = starting
        with pytest.raises(BackendError) as raised:
            await one.to_the_end()
        assert str(raised.value) == ON_FIRE
        assert one.left() == NOTHING


async def test_a_backend_that_cannot_run_sandboxes_is_found_before_anything_is_written() -> None:
    """The store has no record of the job."""
    async with whole_job() as one:
        one.backend.trouble = BackendUnavailableError("no engine answers; start one")
        with pytest.raises(BackendUnavailableError, match=r"^no engine answers; start one$"):
            await one.to_the_end()
        assert one.record is None
        assert one.backend.launched == []


async def test_a_provider_that_cannot_be_opened_ends_the_job() -> None:
    """It is opened while the first Sandbox starts, and its error is one sentence."""
    async with whole_job(forever) as one:
        (one.root / "replies.json").unlink()
        with pytest.raises(ConfigError, match=r"replies\.json, is missing; create it, or choose another --provider"):
            await one.to_the_end()
        assert one.left() == NOTHING


async def test_a_job_that_takes_too_long_can_be_continued() -> None:
    """It is cut off; the outcome has the command that resumes it, and no Run counts as ended."""
    async with whole_job(forever, job_seconds=0.05) as one:
        outcome = (await one.to_the_end()).outcome
        assert outcome is not None
        assert (outcome.status, outcome.text) == (JobStatus.STOPPED_BY_ERROR, None)
        assert outcome.error == "the job reached its limit of 0.05 s; continue: perstack-orch resume job"
        assert one.record is not None
        assert one.record.status is JobStatus.STOPPED_BY_ERROR
        assert one.left() == NOTHING


async def test_a_timeout_that_is_not_the_jobs_is_an_error() -> None:
    """Only the job's own limit makes an outcome."""

    async def starting(_: SandboxSpec) -> None:
        raise TimeoutError

    async with whole_job(job_seconds=30) as one:
        one.backend.starting = starting
        with pytest.raises(TimeoutError):
            await one.to_the_end()


async def test_left_early_a_job_is_cancelled_and_leaves_nothing() -> None:
    """Its record shows it, and the job can be continued."""
    async with whole_job(forever) as one:
        async with one.running() as events:
            async for _ in events:
                break
        assert one.record is not None
        assert one.record.status is JobStatus.CANCELLED
        assert one.left() == NOTHING


@pytest.mark.parametrize("step", ["starting", "running", "removing"])
async def test_cancelled_at_each_step_of_a_sandbox_a_job_leaves_nothing(step: str) -> None:
    """Before it is launched, before it runs, and while it is removed, which continues to its end."""
    reached, let = asyncio.Event(), asyncio.Event()

    async def hold(_: SandboxSpec) -> None:
        reached.set()
        await let.wait()

    async with whole_job(idle if step == "removing" else silent) as one:
        setattr(one.backend, step, hold)
        working = asyncio.ensure_future(one.to_the_end())
        await reached.wait()
        working.cancel()
        await settled()
        let.set()
        await asyncio.wait({working})
        assert one.left() == NOTHING


async def silent(_: Guest) -> None:
    """Never reach the broker."""
    await asyncio.Event().wait()


async def test_a_record_that_cannot_be_written_is_the_error() -> None:
    """Iterating raises it, since the record does not have the job's end."""
    refuses: list[str] = []

    def permit() -> None:
        if refuses:
            raise StoreError(refuses[0])

    async def removing(_: SandboxSpec) -> None:
        # Its Run is over and published; the record is written after this.
        refuses.append("the disk is full; make room")

    async with whole_job() as one:
        one.store = Store(one.root / "store", permit=permit)
        one.backend.removing = removing
        with pytest.raises(StoreError, match="the disk is full; make room"):
            await one.to_the_end()
        assert kinds(one.events) == ["initializeRuntime", "completeRun"]
        assert one.left() == NOTHING


async def test_what_failed_first_is_raised_where_the_record_fails_too() -> None:
    """The first error is more specific; on a full disk it usually has the same cause."""
    refuses: list[str] = []

    def permit() -> None:
        if refuses:
            raise StoreError(refuses[0])

    async def starting(_: SandboxSpec) -> None:
        refuses.append("the disk is full")
        raise BackendError(ON_FIRE)

    async with whole_job() as one:
        one.store = Store(one.root / "store", permit=permit)
        one.backend.starting = starting
        with pytest.raises(BackendError, match=ON_FIRE):
            await one.to_the_end()


async def test_what_other_jobs_left_is_removed_once_the_first_event_is_published() -> None:
    """A remark names each Sandbox."""
    continues = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.begin()
        await continues.wait()
        await guest.complete()

    async with whole_job(script) as one:
        name = leave_old(one)
        async with one.running() as events:
            await turns(lambda: bool(one.notes))
            continues.set()
            async for _ in events:
                pass
        assert one.notes == [f"removed orphaned Sandbox {name}"]


def leave_old(one: Worked) -> str:
    """Leave a Sandbox of a job that the store does not know; give its name."""
    job = one.job
    name = sandbox_name("old", 1, job.instance)
    spec = sandbox_spec(job, 1, one.root / "old", 1)
    old = SandboxSpec(
        name=name, image=spec.image, workspace=spec.workspace, state=spec.state, user=spec.user, deadline=1,
        labels=labels("old", sandbox=name, instance=job.instance, deadline=1),
    )  # fmt: skip
    one.backend.leave_behind(old)
    return name


class Unprunable(FakeBackend):
    """A backend that removes nothing when it should."""

    def __init__(self, backend: FakeBackend, failure: Callable[[], object]) -> None:
        super().__init__(backend.script)
        self._failure = failure

    async def prune(
        self, labels: Mapping[str, str], keep: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """Fail, or take long."""
        await asyncio.sleep(0)
        if self._failure() is None:
            await asyncio.Event().wait()
        return await super().prune(labels, keep)


@pytest.mark.parametrize(
    ("message", "why"),
    [("the engine is busy", "the engine is busy"), (None, "it took too long")],
    ids=["fails", "slow"],
)
async def test_what_cannot_be_removed_of_other_jobs_is_a_remark(
    monkeypatch: pytest.MonkeyPatch, message: str | None, why: str
) -> None:
    """This job continues to its end."""
    if message is None:
        monkeypatch.setattr(runner, "_ORPHAN_CHECK_SECONDS", 0.01)

    def failure() -> None:
        if message is not None:
            raise BackendError(message)

    async with whole_job() as one:
        async with Unprunable(one.backend, failure) as backend:
            one.backend = backend
            events = await one.to_the_end()
        assert events.outcome is not None
        assert events.outcome.status is JobStatus.COMPLETED
        assert one.notes == [f"orphaned Sandboxes could not be removed: {why}"]


async def test_a_job_that_is_over_is_continued_from_its_end() -> None:
    """It continues with the user's new query, in a separate Run."""
    queries: list[str | None] = []

    async def script(guest: Guest) -> None:
        queries.append((await guest.begin()).query)
        await guest.complete("done")

    async with whole_job(script) as one:
        await one.to_the_end()
        events = await one.to_the_end(resume=Resume("more"))
        assert events.outcome is not None
        assert events.outcome.status is JobStatus.COMPLETED
        assert queries == ["go", "more"]
        assert one.left() == NOTHING


async def test_a_job_that_is_over_is_resumed_without_a_sandbox() -> None:
    """The job only removes what is left of an orchestrator that was killed during its own cleanup."""
    async with whole_job() as one:
        await one.to_the_end()
        left = sandbox_spec(one.job, 9, one.root / "gone", 2**31)
        one.backend.leave_behind(left)
        launched = len(one.backend.launched)
        events = await one.to_the_end(resume=Resume())
        assert events.outcome is not None
        assert (events.outcome.status, events.outcome.text) == (JobStatus.COMPLETED, "done")
        assert len(one.backend.launched) == launched
        assert one.left() == NOTHING


async def test_a_job_that_was_cut_is_worked_again() -> None:
    """Sandboxes have new numbers, and what is left of unused ones is removed first."""
    cut = True
    remaining: list[list[str]] = []

    async def script(guest: Guest) -> None:
        await guest.begin()
        remaining.append(one.backend.left)
        if cut:
            await asyncio.Event().wait()
        await guest.complete("done")

    async with whole_job(script, prewarm=0) as one:
        async with one.running() as events:
            async for _ in events:
                break
        cut = False
        left = sandbox_spec(one.job, 5, one.root / "gone", 2**31)
        one.backend.leave_behind(left)
        again = await one.to_the_end(resume=Resume())
        assert again.outcome is not None
        assert again.outcome.text == "done"
        assert one.left() == NOTHING
        names = {number: sandbox_name(JOB_ID, number, one.job.instance) for number in (1, 2, 5)}
        assert [spec.name for spec in one.backend.launched] == [names[1], names[5], names[2]]
        assert remaining == [[names[1]], [names[2]]]


async def test_a_sandbox_of_an_abandoned_run_is_removed_before_a_new_query_is_worked() -> None:
    """It would change the files of the new Run."""
    remaining: list[list[str]] = []

    async def script(guest: Guest) -> None:
        await guest.begin()
        remaining.append(one.backend.left)
        await guest.complete("done")

    async with whole_job(script, prewarm=0) as one:
        await one.to_the_end()
        async with one.store.open(JOB_ID) as records:
            planned = plan(one.job, first(one.job), await records.key(), 1)
            await records.keep_setting(planned.setting.with_(run_id="stray"), 9)
        one.backend.leave_behind(sandbox_spec(one.job, 9, one.root / "gone", 2**31))
        await one.to_the_end(resume=Resume("more"))
        names = [sandbox_name(JOB_ID, number, one.job.instance) for number in (1, 10)]
        assert remaining == [[names[0]], [names[1]]]


async def test_a_sandbox_that_still_works_is_kept_for_its_run() -> None:
    """A killed orchestrator left it: the job reattaches to it and does not remove it; the others are removed.

    One had a Run that is not started again; it is removed with the job.
    """
    async with whole_job() as one:
        job = one.job
        run = plan(job, first(job), bytes(32), 1).run
        directories: list[str] = []

        async def script(guest: Guest) -> None:
            if guest.spec.name == sandbox_name(JOB_ID, 7, job.instance):
                await guest.reattach(run, key_of(one, guest))
                directories.extend(sorted(path.name for path in guest.spec.state.parent.glob("[0-9]*")))
                await guest.complete("as it was")
            else:
                await asyncio.Event().wait()

        one.backend.script = script
        await killed(one, 7)
        events = await one.to_the_end(resume=Resume())
        assert events.outcome is not None
        assert events.outcome.text == "as it was"
        assert directories == ["7", "9"]
        assert len(one.backend.launched) == 3
        assert one.left() == NOTHING


def key_of(one: Worked, guest: Guest) -> str:
    """The session key of the Sandbox that has the first Run."""
    key = (one.store.root / "jobs" / JOB_ID / "key").read_bytes()
    return session_key(key, guest.spec.name, AttemptRef(JOB_ID, first(one.job).checkpoint.run_id, 1))


async def killed(one: Worked, ordinal: int) -> None:
    """Leave what an orchestrator leaves that is killed while a Sandbox works the first Run.

    The next is unused, and the one after it works a Run that the tree no longer comes to.
    """
    job = one.job
    record = JobRecord(
        id=job.id, coordinator_expert_key=job.expert.key, started_at=1, experts=digests(job), max_steps=job.max_steps
    )
    async with one.store.create(record, start=first(job)) as records:
        planned = plan(job, first(job), await records.key(), 1)
        await records.keep_setting(planned.setting, ordinal)
        await records.keep_setting(planned.setting.with_(run_id="stray"), ordinal + 2)
    above = directory_of(job.instance, job.id, job.state_root)
    for number in range(ordinal, ordinal + 3):
        state = above / str(number)
        state.mkdir(parents=True)
        (state / SPOOL_NAME).touch()
        make_socket_directory(state)
        one.backend.leave_behind(sandbox_spec(job, number, state, 2**31))


async def test_what_a_skill_reaches_is_an_event() -> None:
    """It is refused here, since the host was not declared; the event has the reason."""

    async def script(guest: Guest) -> None:
        run = await guest.begin()
        refused = await guest.open_tunnel(run.exec_grant.proxy_credential or "", "api.example.com")
        assert refused is not None
        await guest.complete()

    toml = """
[experts.boss]
instruction = "Lead."
[experts.boss.skills."@perstack/base"]
type = "mcpStdioSkill"
command = "npx"
packageName = "@perstack/base"
allowedDomains = ["other.example.com"]
"""
    async with whole_job(script, toml=toml) as one:
        await one.to_the_end()
        [access] = [event for event in one.events if isinstance(event, ProxyAccess)]
        assert (access.action, access.domain, access.port) == ("blocked", "api.example.com", 443)


async def test_a_lost_sandbox_is_replaced_within_the_job() -> None:
    """The outcome is that of the attempt that completed."""
    tried: list[int] = []

    async def script(guest: Guest) -> Exit | None:
        run = await guest.begin()
        tried.append(run.attempt)
        if run.attempt == 1:
            return Exit(None, Reason.LOST)
        await guest.complete("done")
        return None

    async with whole_job(script) as one:
        events = await one.to_the_end()
        assert events.outcome is not None
        assert (events.outcome.text, events.outcome.receipt.containers, tried) == ("done", 2, [1, 2])


SECRET = "sk-canary-123456"


async def write_no_event(guest: Guest) -> None:
    """Write a line that is no event, and contains a secret."""
    await guest.begin()
    guest.write(f"{guest.spec.name} {SECRET}\n".encode())
    await guest.complete()


async def test_jobs_of_one_process_have_records_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    """Each record names its job, and no handler gets a secret of a running job."""
    caplog.set_level(logging.DEBUG, "orchestrator")
    async with whole_job(write_no_event, secrets=(SECRET,)) as one, whole_job(write_no_event, id="other") as other:
        await asyncio.gather(one.to_the_end(), other.to_the_end())
    records = [record for record in caplog.records if record.name == "orchestrator.events.collector"]
    assert sorted(record.__dict__["job_id"] for record in records) == sorted([JOB_ID, "other"])
    for each in (one, other):
        (note,) = each.notes
        assert f"{each.backend.launched[0].name} [masked]" in note
    assert SECRET not in caplog.text


async def test_the_old_callbacks_still_get_what_a_job_logs() -> None:
    """With a warning at the caller's line: details of this job alone go to one, its messages to the other."""
    notes: list[str] = []
    announced: list[str] = []
    async with whole_job(write_no_event) as one, whole_job(write_no_event, id="other") as other:
        with pytest.warns(DeprecationWarning, match=r"^run_job\(note=, announce=\) is now the logger") as warned:
            await asyncio.gather(
                one.to_the_end(note=notes.append), other.to_the_end(note=print, announce=announced.append)
            )
        assert (notes, announced) == (one.notes, [])
        assert len(notes) == 1
    assert [each.filename for each in warned] == [scheduling.__file__, scheduling.__file__]
