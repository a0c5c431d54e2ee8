"""What every backend does, tried with real Sandboxes that run small programs."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from orchestrator.backends import naming
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.sandbox import Exit, Reason, Sandbox
from tests.support.places import Place, docker_place, kubernetes_place, process_place

PATIENCE = 60.0
SLEEP = "import time; print('up', flush=True); time.sleep(3600)"
FOREVER = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); {SLEEP}"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@pytest.fixture(
    params=[
        pytest.param(docker_place, marks=pytest.mark.docker, id="docker"),
        pytest.param(kubernetes_place, marks=pytest.mark.kubernetes, id="kubernetes"),
        pytest.param(process_place, id="process"),
    ]
)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Give each place in turn, and look afterwards for anything left: Sandboxes, children, open files, tasks."""
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 # the count is all that matters
    async with asyncio.timeout(PATIENCE), request.param(tmp_path) as found:
        yield found
        await asyncio.sleep(0)  # transports close their files in the loop's next turn
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert found.left() == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 # does not wait: there must be nobody to wait for
    assert len(os.listdir("/proc/self/fd")) <= files  # noqa: PTH208 # the same


async def lines_of(sandbox: Sandbox) -> list[bytes]:
    """Read all lines."""
    return [line async for line in sandbox.lines()]


async def first_line(sandbox: Sandbox) -> bytes:
    """Wait for the first line."""
    async for line in sandbox.lines():
        return line
    return b""


async def test_check_passes_here(place: Place) -> None:
    """Where tests run, Sandboxes can run."""
    async with place.connect() as backend:
        await backend.check()


async def test_lines_come_in_order(place: Place) -> None:
    """Twenty thousand lines, none missing, none twice."""
    async with place.running(f"for n in range(20000): print('line', n)\n{place.linger}") as sandbox:
        assert await lines_of(sandbox) == [b"line %d" % n for n in range(20000)]
        assert await sandbox.wait() == Exit(0, Reason.COMPLETED)


@pytest.mark.parametrize("size", [16383, 16384, 16385, 16386, 32768, 65535])
async def test_a_line_of_any_size_below_the_bound_is_whole(place: Place, size: int) -> None:
    """An engine cuts lines into records of 16 KiB; they are put together again."""
    async with place.running(f"print('a'); print('x' * {size}); print('b')") as sandbox:
        assert await lines_of(sandbox) == [b"a", b"x" * size, b"b"]


async def test_a_line_over_the_bound_is_dropped_alone(place: Place) -> None:
    """A megabyte without a newline costs that line and no other."""
    async with place.running("print('a'); print('x' * 1048576); print('b')") as sandbox:
        assert await lines_of(sandbox) == [b"a", b"b"]


async def test_the_bound_can_be_widened(place: Place) -> None:
    """Events in full detail are long lines."""
    async with place.running("print('x' * 1048576)", line_bytes=2 * 1048576) as sandbox:
        assert await lines_of(sandbox) == [b"x" * 1048576]


async def test_a_last_line_without_newline_is_a_line(place: Place) -> None:
    """What stands at the end of stdout is given whole, unless an old engine keeps it to itself (moby#43860)."""
    async with place.running("import sys; sys.stdout.write('a\\nend')") as sandbox:
        assert await lines_of(sandbox) in ([b"a", b"end"], [b"a"] if place.kind == "docker" else None)


async def test_bytes_that_are_no_text_harm_no_neighbour(place: Place) -> None:
    """An engine's log may replace bytes that are not UTF-8, but the lines around stay as they are."""
    async with place.running("import sys; sys.stdout.buffer.write(b'a\\n\\xff\\xfe\\x00\\nb\\n')") as sandbox:
        first, odd, last = await lines_of(sandbox)
    assert (first, bool(odd), last) == (b"a", True, b"b")


async def test_stderr_is_no_part_of_the_lines(place: Place) -> None:
    """Only stdout carries events."""
    async with place.running("import sys; print('bad', file=sys.stderr); print('good')") as sandbox:
        assert await lines_of(sandbox) == [b"good"]


async def test_stdout_may_close_before_the_end(place: Place) -> None:
    """The end is what `wait` says, not the end of stdout."""
    program = "import os, time; os.write(1, b'a\\n'); os.close(1); time.sleep(0.2); os._exit(7)"
    async with place.running(program) as sandbox:
        assert await lines_of(sandbox) == [b"a"]
        assert await sandbox.wait() == Exit(7, Reason.ERROR)


async def test_wait_tells_code_and_last_words(place: Place) -> None:
    """The last lines of stderr explain a failure; asked again, the answer is the same."""
    async with place.running("import sys; sys.stderr.write('x' * 9000 + '\\nout of luck\\n'); sys.exit(3)") as sandbox:
        ended = await sandbox.wait()
        assert (ended.code, ended.reason, ended.detail[-11:]) == (3, Reason.ERROR, "out of luck")
        assert len(ended.detail) <= 4096
        assert await sandbox.wait() == ended


async def test_a_signal_is_told_as_a_shell_does(place: Place) -> None:
    """128 and the signal's number; a handler of its own lets PID 1 take the signal too."""
    program = "import os, signal, sys; signal.signal(15, lambda *_: sys.exit(143)); os.kill(os.getpid(), 15)"
    async with place.running(program) as sandbox:
        assert await sandbox.wait() == Exit(143, Reason.ERROR)


async def test_workspace_and_state_are_the_users(place: Place) -> None:
    """Both directories can be written, and what is written is owned by the user of the spec."""
    spec = place.spec()
    workspace, state = place.inside(spec)
    program = f"for d in ({str(workspace)!r}, {str(state)!r}): open(d + '/made', 'w').write('here')"
    async with place.connect(program) as backend, backend.launch(spec) as sandbox:
        assert await sandbox.wait() == Exit(0, Reason.COMPLETED)
    for file in (spec.workspace / "made", spec.state / "made"):
        assert (file.read_text(), file.stat().st_uid, file.stat().st_gid) == ("here", spec.user.uid, spec.user.gid)


async def test_it_starts_in_the_root_with_hardly_any_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the orchestrator's environment or directory gets in."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "canary")
    async with place.running("import os; print(os.getcwd()); print(*os.environ.values())") as sandbox:
        cwd, values = await lines_of(sandbox)
    assert cwd == b"/"
    assert b"canary" not in values


async def test_leaving_ends_what_still_runs(place: Place) -> None:
    """Left by return, a Sandbox is stopped, removed, and says it was cancelled."""
    async with place.running(FOREVER) as sandbox:
        assert await first_line(sandbox) == b"up"
    assert place.left() == []
    assert (await sandbox.wait()).reason is Reason.CANCELLED


async def test_leaving_by_error_removes(place: Place) -> None:
    """The error comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        async with place.running(FOREVER):
            raise ZeroDivisionError
    assert place.left() == []


async def test_leaving_by_cancellation_removes(place: Place) -> None:
    """Cancelled twice it still removes before it ends."""
    up = asyncio.Event()

    async def hold() -> None:
        async with place.running(FOREVER) as sandbox:
            await first_line(sandbox)
            up.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(hold())
        await up.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert place.left() == []


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.01, 0.05, 0.15])
async def test_cancelled_while_it_starts_nothing_is_left(place: Place, seconds: float) -> None:
    """Whenever the cancellation comes, also between create and start."""

    async def hold() -> None:
        async with place.running(FOREVER):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await hold()
    assert place.left() == []


async def test_pruned_it_is_killed_at_once(place: Place) -> None:
    """Also one that ignores SIGTERM, whose grace is three seconds when it is left.

    In a cluster that takes the right to delete Pods, which nobody here has: there the grace passes.
    """
    loop = asyncio.get_running_loop()
    async with place.connect(STUBBORN) as backend, backend.launch(place.spec()) as sandbox:
        assert await first_line(sandbox) == b"up"
        begun = loop.time()
        assert await backend.prune(naming.instance_labels(place.instance)) == (sandbox.name,)
        assert loop.time() - begun < (15 if place.kind == "kubernetes" else 2.5)
    assert place.left() == []


async def test_who_ignores_sigterm_is_killed_within_the_grace(place: Place) -> None:
    """Three seconds, then SIGKILL."""
    loop = asyncio.get_running_loop()
    async with place.running(STUBBORN) as sandbox:
        assert await first_line(sandbox) == b"up"
        begun = loop.time()
    assert 2.5 < loop.time() - begun < 6


async def test_descendants_end_with_it(place: Place) -> None:
    """A child that holds stdout does not outlive the Sandbox, so the lines end."""
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])"
    async with place.running(program) as sandbox:
        assert await sandbox.wait() == Exit(0, Reason.COMPLETED)
        assert await lines_of(sandbox) == []


async def test_eight_at_once(place: Place) -> None:
    """Sandboxes do not mix."""
    program = "import time; [print(n, flush=True) or time.sleep(0.01) for n in range(10)]"

    async with place.connect(program) as backend:

        async def one(ordinal: int) -> tuple[list[bytes], Exit]:
            async with backend.launch(place.spec(ordinal)) as sandbox:
                return await lines_of(sandbox), await sandbox.wait()

        async with asyncio.TaskGroup() as tasks:
            all_of_them = [tasks.create_task(one(ordinal)) for ordinal in range(8)]
    expected = ([b"%d" % n for n in range(10)], Exit(0, Reason.COMPLETED))
    assert [task.result() for task in all_of_them] == [expected] * 8


async def test_a_name_is_taken_once(place: Place) -> None:
    """The second launch is refused, and the first Sandbox keeps running."""
    async with place.connect(FOREVER) as backend, backend.launch(place.spec()) as sandbox:
        with pytest.raises(BackendError, match=f"named {sandbox.name} "):
            async with backend.launch(place.spec()):
                pass
        assert await first_line(sandbox) == b"up"


async def test_adopted_it_is_held_as_if_launched(place: Place) -> None:
    """Another orchestrator can take a running Sandbox over; leaving ends it."""
    async with place.connect(FOREVER) as first, place.connect() as second, first.launch(place.spec()) as launched:
        assert await first_line(launched) == b"up"
        async with second.adopt(launched.name) as adopted:
            assert adopted.name == launched.name
        assert place.left() == []
        assert (await adopted.wait()).reason is Reason.CANCELLED


async def test_adopting_nobody_is_an_error(place: Place) -> None:
    """The sentence names what was looked for."""
    async with place.connect() as backend:
        with pytest.raises(SandboxLostError, match="there is no Sandbox nobody-s1"):
            async with backend.adopt("nobody-s1"):
                pass


async def test_prune_ends_only_what_carries_the_labels(place: Place) -> None:
    """One of two goes; its name is told."""
    async with place.connect(FOREVER) as backend:
        async with backend.launch(place.spec(1)) as one, backend.launch(place.spec(2)) as other:
            await first_line(one)
            await first_line(other)
            instance = {"perstack.ai/instance": place.instance}
            assert await backend.prune(instance | {"perstack.ai/sandbox": one.name}) == (one.name,)
            assert await backend.prune({"perstack.ai/instance": "somebody-else"}) == ()
            async with backend.adopt(other.name):
                pass
        assert await backend.prune(instance) == ()


async def test_prune_spares_whom_it_is_told_to(place: Place) -> None:
    """The predicate gets each Sandbox's own labels."""
    instance = {"perstack.ai/instance": place.instance}
    async with (
        place.connect(FOREVER) as backend,
        backend.launch(place.spec(1)) as one,
        backend.launch(place.spec(2)) as other,
    ):
        await first_line(one)
        await first_line(other)

        def is_other(labels: Mapping[str, str]) -> bool:
            return labels["perstack.ai/sandbox"] == other.name

        assert await backend.prune(instance, spare=is_other) == (one.name,)
        assert await backend.prune(instance) == (other.name,)
