"""What every backend must do: tests that a backend passes, wherever it comes from.

Subclass `BackendContract`, or `ProcessBackendContract` if Sandboxes are processes, and define `make`. The tests need
pytest-asyncio in its mode `auto`; register this module with `pytest.register_assert_rewrite` for readable failures.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.sandbox import naming
from orchestrator.sandbox.api import Exit, Reason
from orchestrator.testing.harness import Harness, SandboxProgram
from orchestrator.testing.leak_check import no_child_left, nothing_left
from orchestrator.testing.programs import FOREVER, STUBBORN, first_line, lines_of, writing
from orchestrator.testing.scripted_sandbox import Guest


class BackendContract:
    """What every backend must do, tried with Sandboxes that run small programs."""

    def make(self, root: Path, /) -> AbstractAsyncContextManager[Harness]:
        """Set the backend up for one test, whose files are below `root`."""
        raise NotImplementedError

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[Harness]:
        """Give the backend, and check afterwards that nothing is left: Sandboxes, children, open files, tasks."""
        with no_child_left():
            async with asyncio.timeout(60), nothing_left(), self.make(tmp_path) as made:
                yield made
                assert made.left() == []

    async def test_check_passes_here(self, harness: Harness) -> None:
        """Where tests run, Sandboxes can run."""
        async with harness.connect() as backend:
            await backend.check()

    async def test_lines_come_in_order(self, harness: Harness) -> None:
        """Twenty thousand lines, none missing, none twice."""
        async with harness.running(
            writing(
                f"for n in range(20000): print('line', n)\n{harness.linger}", *(b"line %d\n" % n for n in range(20000))
            )
        ) as sandbox:
            assert await lines_of(sandbox) == [b"line %d" % n for n in range(20000)]
            assert await sandbox.wait() == Exit(0, Reason.COMPLETED)

    @pytest.mark.parametrize("size", [16383, 16384, 16385, 16386, 32768, 65535])
    async def test_a_line_of_any_size_below_the_bound_is_whole(self, harness: Harness, size: int) -> None:
        """An engine cuts lines into records of 16 KiB; they are put together again."""
        program = writing(f"print('a'); print('x' * {size}); print('b')", b"a\n", b"x" * size + b"\n", b"b\n")
        async with harness.running(program) as sandbox:
            assert await lines_of(sandbox) == [b"a", b"x" * size, b"b"]

    async def test_a_line_over_the_bound_is_dropped_alone(self, harness: Harness) -> None:
        """A megabyte without a newline costs that line and no other."""
        source = "print('a'); print('x' * 1048576); print('b')"
        async with harness.running(writing(source, b"a\n", b"x" * 1048576, b"\nb\n")) as sandbox:
            assert await lines_of(sandbox) == [b"a", b"b"]

    async def test_the_bound_can_be_widened(self, harness: Harness) -> None:
        """Events in full detail are long lines."""
        program = writing("print('x' * 1048576)", b"x" * 1048576 + b"\n")
        async with harness.running(program, line_bytes=2 * 1048576) as sandbox:
            assert await lines_of(sandbox) == [b"x" * 1048576]

    async def test_a_last_line_without_newline_is_a_line(self, harness: Harness) -> None:
        """What stands at the end of stdout is given whole, unless an old engine keeps it to itself (moby#43860)."""
        async with harness.running(writing("import sys; sys.stdout.write('a\\nend')", b"a\nend")) as sandbox:
            assert await lines_of(sandbox) in ([b"a", b"end"], None if harness.keeps_last_line else [b"a"])

    async def test_bytes_that_are_no_text_harm_no_neighbour(self, harness: Harness) -> None:
        """An engine's log may replace bytes that are not UTF-8, but the lines around stay as they are."""
        source = "import sys; sys.stdout.buffer.write(b'a\\n\\xff\\xfe\\x00\\nb\\n')"
        async with harness.running(writing(source, b"a\n\xff\xfe\x00\nb\n")) as sandbox:
            first, odd, last = await lines_of(sandbox)
        assert (first, bool(odd), last) == (b"a", True, b"b")

    async def test_stderr_is_no_part_of_the_lines(self, harness: Harness) -> None:
        """Only stdout carries events."""
        source = "import sys; print('bad', file=sys.stderr); print('good')"
        async with harness.running(writing(source, b"good\n", stderr="bad\n")) as sandbox:
            assert await lines_of(sandbox) == [b"good"]

    async def test_stdout_may_close_before_the_end(self, harness: Harness) -> None:
        """A Sandbox ends when `wait` returns, not when stdout ends."""
        source = "import os, time; os.write(1, b'a\\n'); os.close(1); time.sleep(0.2); os._exit(7)"

        async def script(guest: Guest) -> int:
            guest.write(b"a\n")
            guest.shut()
            await asyncio.sleep(0)
            return 7

        async with harness.running(SandboxProgram(source, script)) as sandbox:
            assert await lines_of(sandbox) == [b"a"]
            assert await sandbox.wait() == Exit(7, Reason.ERROR)

    async def test_wait_returns_code_and_last_line(self, harness: Harness) -> None:
        """The last lines of stderr explain a failure; asked again, the answer is the same."""
        source = "import sys; sys.stderr.write('x' * 9000 + '\\nout of luck\\n'); sys.exit(3)"
        program = writing(source, stderr="x" * 9000 + "\nout of luck\n", code=3)
        async with harness.running(program) as sandbox:
            ended = await sandbox.wait()
            assert (ended.code, ended.reason, ended.detail[-11:]) == (3, Reason.ERROR, "out of luck")
            assert len(ended.detail) <= 4096
            assert await sandbox.wait() == ended

    async def test_workspace_and_state_are_the_users(self, harness: Harness) -> None:
        """Both directories can be written, and what is written is owned by the user of the spec."""
        spec = harness.spec()
        workspace, state = harness.inside(spec)
        source = f"for d in ({str(workspace)!r}, {str(state)!r}): open(d + '/made', 'w').write('here')"

        async def script(guest: Guest) -> None:
            for directory in (guest.spec.workspace, guest.spec.state):
                (directory / "made").write_text("here")

        async with harness.connect(SandboxProgram(source, script)) as backend, backend.launch(spec) as sandbox:
            assert await sandbox.wait() == Exit(0, Reason.COMPLETED)
        for file in (spec.workspace / "made", spec.state / "made"):
            assert (file.read_text(), file.stat().st_uid, file.stat().st_gid) == ("here", spec.user.uid, spec.user.gid)

    async def test_leaving_ends_what_still_runs(self, harness: Harness) -> None:
        """A Sandbox whose block is left by return is stopped and removed, and `wait` reports that it was cancelled."""
        async with harness.running(FOREVER) as sandbox:
            assert await first_line(sandbox) == b"up"
        assert harness.left() == []
        assert (await sandbox.wait()).reason is Reason.CANCELLED

    async def test_leaving_by_error_removes(self, harness: Harness) -> None:
        """The error comes out as it is."""
        with pytest.raises(ZeroDivisionError):
            async with harness.running(FOREVER):
                raise ZeroDivisionError
        assert harness.left() == []

    async def test_leaving_by_cancellation_removes(self, harness: Harness) -> None:
        """Cancelled twice it still removes before it ends."""
        up = asyncio.Event()

        async def hold() -> None:
            async with harness.running(FOREVER) as sandbox:
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
        assert harness.left() == []

    @pytest.mark.parametrize("seconds", [0.0, 0.002, 0.01, 0.05, 0.15])
    async def test_cancelled_while_it_starts_nothing_is_left(self, harness: Harness, seconds: float) -> None:
        """Whenever the cancellation comes, also between create and start."""

        async def hold() -> None:
            async with harness.running(FOREVER):
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await hold()
        assert harness.left() == []

    async def test_pruned_it_is_killed_at_once(self, harness: Harness) -> None:
        """Also one that ignores SIGTERM, whose grace is three seconds when it is left.

        In a cluster that takes the right to delete Pods, which no account here has: there the grace passes.
        """
        loop = asyncio.get_running_loop()
        async with harness.connect(STUBBORN) as backend, backend.launch(harness.spec()) as sandbox:
            assert await first_line(sandbox) == b"up"
            begun = loop.time()
            assert await backend.prune(naming.instance_labels(harness.instance)) == (sandbox.name,)
            assert loop.time() - begun < harness.prune_seconds
        assert harness.left() == []

    async def test_eight_at_once(self, harness: Harness) -> None:
        """Sandboxes do not mix."""
        source = "import time; [print(n, flush=True) or time.sleep(0.01) for n in range(10)]"

        async def script(guest: Guest) -> None:
            for n in range(10):
                guest.write(b"%d\n" % n)
                await asyncio.sleep(0)

        async with harness.connect(SandboxProgram(source, script)) as backend:

            async def one(ordinal: int) -> tuple[list[bytes], Exit]:
                async with backend.launch(harness.spec(ordinal)) as sandbox:
                    return await lines_of(sandbox), await sandbox.wait()

            async with asyncio.TaskGroup() as tasks:
                all_of_them = [tasks.create_task(one(ordinal)) for ordinal in range(8)]
        expected = ([b"%d" % n for n in range(10)], Exit(0, Reason.COMPLETED))
        assert [task.result() for task in all_of_them] == [expected] * 8

    async def test_a_name_is_taken_once(self, harness: Harness) -> None:
        """The second launch is refused, and the first Sandbox keeps running."""
        async with harness.connect(FOREVER) as backend, backend.launch(harness.spec()) as sandbox:
            with pytest.raises(BackendError, match=f"named {sandbox.name} "):
                async with backend.launch(harness.spec()):
                    pass
            assert await first_line(sandbox) == b"up"

    async def test_adopted_it_is_held_as_if_launched(self, harness: Harness) -> None:
        """Another orchestrator can take a running Sandbox over; leaving ends it."""
        async with (
            harness.connect(FOREVER) as first,
            harness.connect() as second,
            first.launch(harness.spec()) as launched,
        ):
            assert await first_line(launched) == b"up"
            async with second.adopt(launched.name) as adopted:
                assert adopted.name == launched.name
            assert harness.left() == []
            assert (await adopted.wait()).reason is Reason.CANCELLED

    async def test_adopting_a_missing_sandbox_is_an_error(self, harness: Harness) -> None:
        """The sentence names what was looked for."""
        async with harness.connect() as backend:
            with pytest.raises(SandboxLostError, match="no Sandbox nobody-s1"):
                async with backend.adopt("nobody-s1"):
                    pass

    async def test_prune_ends_only_what_carries_the_labels(self, harness: Harness) -> None:
        """Of two Sandboxes, one is removed and its name returned."""
        async with harness.connect(FOREVER) as backend:
            async with backend.launch(harness.spec(1)) as one, backend.launch(harness.spec(2)) as other:
                await first_line(one)
                await first_line(other)
                instance = {"perstack.ai/instance": harness.instance}
                assert await backend.prune(instance | {"perstack.ai/sandbox": one.name}) == (one.name,)
                assert await backend.prune({"perstack.ai/instance": "somebody-else"}) == ()
                async with backend.adopt(other.name):
                    pass
            assert await backend.prune(instance) == ()

    async def test_prune_keeps_those_that_it_is_given(self, harness: Harness) -> None:
        """The predicate gets each Sandbox's own labels."""
        instance = {"perstack.ai/instance": harness.instance}
        async with (
            harness.connect(FOREVER) as backend,
            backend.launch(harness.spec(1)) as one,
            backend.launch(harness.spec(2)) as other,
        ):
            await first_line(one)
            await first_line(other)

            def is_other(labels: Mapping[str, str]) -> bool:
                return labels["perstack.ai/sandbox"] == other.name

            assert await backend.prune(instance, is_other) == (one.name,)
            assert await backend.prune(instance) == (other.name,)


class ProcessBackendContract(BackendContract):
    """What every backend must do whose Sandboxes are processes: signals, environment, descendants."""

    async def test_a_signal_is_reported_as_in_a_shell(self, harness: Harness) -> None:
        """128 and the signal's number; a handler of its own lets PID 1 take the signal too."""
        program = "import os, signal, sys; signal.signal(15, lambda *_: sys.exit(143)); os.kill(os.getpid(), 15)"
        async with harness.running(program) as sandbox:
            assert await sandbox.wait() == Exit(143, Reason.ERROR)

    async def test_it_starts_in_the_root_with_hardly_any_environment(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing of the orchestrator's environment or directory gets in."""
        monkeypatch.setenv("ANTHROPIC_API_KEY", "canary")
        async with harness.running("import os; print(os.getcwd()); print(*os.environ.values())") as sandbox:
            cwd, values = await lines_of(sandbox)
        assert cwd == b"/"
        assert b"canary" not in values

    async def test_who_ignores_sigterm_is_killed_within_the_grace(self, harness: Harness) -> None:
        """Three seconds, then SIGKILL."""
        loop = asyncio.get_running_loop()
        async with harness.running(STUBBORN) as sandbox:
            assert await first_line(sandbox) == b"up"
            begun = loop.time()
        assert 2.5 < loop.time() - begun < 6

    async def test_descendants_end_with_it(self, harness: Harness) -> None:
        """A child that holds stdout does not outlive the Sandbox, so the lines end."""
        program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])"
        async with harness.running(program) as sandbox:
            assert await sandbox.wait() == Exit(0, Reason.COMPLETED)
            assert await lines_of(sandbox) == []
