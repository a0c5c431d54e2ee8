"""Engines that cannot run Sandboxes, or fail while they run: restarted, frozen, cut off, out of order."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from orchestrator.wire.event import CompleteRun
from tests.support import engine
from tests.support.chaos_proxy import Chaos, chaos_proxy
from tests.support.engine_proxy import engine_proxy
from tests.support.project import ONE, SECONDS, TEAM, Make, Result, ask, say, use
from tests.support.second_engine import SecondEngine, second_engine


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
async def test_an_engine_that_shares_no_sockets(project: Make, tmp_path: Path) -> None:
    """The first Sandbox finds it out within a second, and the next is linked by a stream; later jobs begin with those.

    A user who demands sockets gets the reason and the remedy.
    """
    made = project(ONE, {"one": [say("done")]})
    async with engine_proxy(tmp_path, shares=False) as apart:
        env = {"DOCKER_HOST": apart.address, "XDG_STATE_HOME": str(tmp_path / "state")}
        result = await made.run("one", "go", "--job-id", "apart", env=env)
        refused = len(apart.changed)
        again = await made.run("one", "go", "--job-id", "again", env=env)
        assert len(apart.changed) == refused
        demanded = await made.run("one", "go", "--job-id", "demanded", "--link", "socket", env=env)
    assert refused >= 1
    for each in (result, again):
        assert each.code == 0, each.stderr
        _is_whole(each)
    assert (demanded.code, demanded.stdout) == (3, b""), demanded.stderr
    assert "Traceback" not in demanded.stderr
    told = [line for line in demanded.stderr.splitlines() if "demanded-" in line]
    assert len(told) == 1, demanded.stderr
    assert "ended before it reached its broker (exit code 68: the broker's socket does not answer" in told[0]
    assert "use --link stream if the engine does not share unix sockets" in told[0]


WORK = {
    "boss": [use(ask("left", "go"), ask("right", "go")), say("both done")],
    "left": [use(("listDirectory", {"path": "."})) | {"delayMs": 1500}, say("left done") | {"delayMs": 1500}],
    "right": [say("right done") | {"delayMs": 3000}],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecondEngine]:
    """An engine that may be stopped."""
    async with second_engine(tmp_path_factory.mktemp("engine") / "second") as found:
        yield found


def _is_whole(result: Result) -> None:
    """Every event of every attempt once and in order, and one end for each Run."""
    assert [event.position for event in result.events] == list(range(1, len(result.events) + 1))
    numbers: dict[tuple[str, int | None], list[int]] = {}
    for event in result.events:
        if event.seq is not None:
            numbers.setdefault((event.run_id, event.attempt), []).append(event.seq)
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values()), numbers


@pytest.mark.docker
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("backend", ["docker"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
async def test_an_engine_that_is_restarted_under_its_sandboxes(
    project: Make, second: SecondEngine, how: signal.Signals
) -> None:
    """It ends its Sandboxes; their Runs begin new attempts, and the jobs are done as without the restart."""
    made = project(TEAM, WORK)
    env = {"DOCKER_HOST": second.address}
    process = await made.start("run", "--backend", "docker", "boss", "go", env=env)
    async with asyncio.timeout(SECONDS):
        assert process.stdout is not None
        first = [await process.stdout.readline() for _ in range(12)]
        await second.restarted(how)
        rest, stderr = await process.communicate()
    result = Result(process.returncode or 0, b"".join(first) + rest, stderr.decode())
    assert result.code == 0, result.stderr
    _is_whole(result)
    assert [event.text for event in result.of(CompleteRun)][-1] == "both done"
    assert max(event.attempt or 1 for event in result.events) > 1
    assert second.docker("ps", "-aq", "--filter", f"label={engine.LABEL}") == ""


@pytest.mark.docker
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("backend", ["docker"])
async def test_an_engine_that_falls_silent(project: Make, second: SecondEngine) -> None:
    """Connections stay open and silent; a Run's own link does not lead through the engine, so the Run continues."""
    made = project(ONE, {"one": [use(("listDirectory", {"path": "."})), say("done") | {"delayMs": 500}]})
    process = await made.start("run", "--backend", "docker", "one", "go", env={"DOCKER_HOST": second.address})
    assert process.stdout is not None
    assert second.process is not None
    async with asyncio.timeout(SECONDS):
        lines = [await process.stdout.readline()]
        second.process.send_signal(signal.SIGSTOP)
        try:
            while lines[-1] and b'"completeRun"' not in lines[-1]:
                lines.append(await process.stdout.readline())
        finally:
            second.process.send_signal(signal.SIGCONT)
        rest, stderr = await process.communicate()
    result = Result(process.returncode or 0, b"".join(lines) + rest, stderr.decode())
    assert result.code == 0, result.stderr
    _is_whole(result)


@pytest.mark.docker
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("backend", ["docker"])
async def test_an_image_that_goes_away(project: Make, second: SecondEngine) -> None:
    """While a job runs the next Sandbox cannot start, which is an error; when the image is back the job continues."""
    image = "perstack-orch-test-gone:1"
    second.docker("tag", engine.runtime_image(), image)
    made = project(
        TEAM.replace('"left", "right"', '"left"'),
        {"boss": [use(ask("left", "go")) | {"delayMs": 3000}, say("done")], "left": [say("left done")]},
    )
    env = {"DOCKER_HOST": second.address}
    options = ("--backend", "docker", "--image", image)
    process = await made.start("run", *options, "--prewarm", "off", "--job-id", "j", "boss", "go", env=env)
    assert process.stdout is not None
    async with asyncio.timeout(SECONDS):
        line = await process.stdout.readline()
        second.docker("rmi", "--force", image)
        rest, stderr = await process.communicate()
    before = Result(process.returncode or 0, line + rest, stderr.decode())
    assert before.code == 3, before.stderr
    assert f"no image {image} exists" in before.stderr
    second.docker("tag", engine.runtime_image(), image)
    after = await made.command("resume", *options, "j", env=env)
    assert after.code == 0, after.stderr
    assert [event.text for event in after.of(CompleteRun)][-1] == "done"


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
@pytest.mark.parametrize("what", ["cut", "freeze"])
async def test_logs_that_break_off(project: Make, tmp_path: Path, what: str) -> None:
    """The stream of a Sandbox's output is cut or stalls at any point: each event arrives once, in order."""
    made = project(TEAM, WORK)
    chance = random.Random(what)  # noqa: S311 - where to cut
    async with chaos_proxy(tmp_path) as proxy:
        proxy.chaos = Chaos(lambda target: "/logs" in target)
        setattr(proxy.chaos, what, lambda: chance.randrange(4000))
        result = await made.run("boss", "go", env={"DOCKER_HOST": proxy.address})
    assert proxy.chaos.hits >= 4
    assert result.code == 0, result.stderr
    _is_whole(result)


@pytest.mark.docker
@pytest.mark.parametrize("backend", ["docker"])
@pytest.mark.parametrize("target", ["/wait", "/start", "/containers/create"])
async def test_an_engine_that_answers_with_errors(project: Make, tmp_path: Path, target: str) -> None:
    """A read is sent again; a start that fails is an error with the engine's own words, exit 3."""
    made = project(ONE, {"one": [say("done")]})
    async with chaos_proxy(tmp_path) as proxy:
        proxy.chaos = Chaos(lambda asked: target in asked, fail=3)
        result = await made.run("one", "go", env={"DOCKER_HOST": proxy.address})
    if target == "/wait":
        assert result.code == 0, result.stderr
        return
    assert result.code == 3, result.stderr
    assert "no space left on device" in result.stderr
    assert len([line for line in result.stderr.splitlines() if "perstack-orch:" in line]) == 1
