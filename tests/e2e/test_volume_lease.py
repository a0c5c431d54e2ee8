"""Jobs that want one volume of the engine: one has it at a time, and what a killed one held is free again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.backends.docker.backend import connect
from orchestrator.sandbox.naming import volume_lease_name
from orchestrator.wire.event import CompleteRun
from tests.support import engine
from tests.support.images import docker
from tests.support.project import ONE, PYTHON, TEAM, Make, Project, ask, ended, refused, say, use

pytestmark = [pytest.mark.docker, pytest.mark.parametrize("backend", ["docker"])]

ROUNDS = 5


def sleeping(seconds: float) -> tuple[str, dict[str, object]]:
    """A call of `exec` that takes some time."""
    args = ["-c", f"import time; time.sleep({seconds})"]
    shared = {"env": {}, "cwd": ".", "stdout": True, "stderr": True}
    return ("exec", {"command": PYTHON["docker"], "args": args, **shared})


@pytest.fixture
def volume() -> Iterator[str]:
    """A volume's name; the volume is removed."""
    name = f"perstack-lease-test-{os.getpid()}"
    yield name
    docker("volume", "rm", "--force", name)


def options(volume: str) -> tuple[str, ...]:
    """The options of a job on the volume."""
    return ("--workspace", f"volume:{volume}")


def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of an orchestrator that shares nothing with others but the engine."""
    state = tmp_path / "elsewhere"
    state.mkdir(exist_ok=True)
    return {"XDG_STATE_HOME": str(state)}


@asynccontextmanager
async def working(made: Project, volume: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a job with id `j` that works in the volume, and give it once its command runs."""
    process = await made.start("run", "--job-id", "j", *options(volume), "one", "go")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b'"callTools"' not in (line := await process.stdout.readline()):
            assert line, (await process.communicate())[1]
    yield process
    if process.returncode is None:
        process.kill()
        await process.communicate()


@pytest.mark.parametrize("place", ["same", "elsewhere"])
async def test_of_two_at_once_one_has_the_volume(project: Make, tmp_path: Path, volume: str, place: str) -> None:
    """The other ends with one sentence before it does anything, whether it is of the same user or shares the engine."""
    made = project(ONE, {"one": [use(sleeping(2)), say("done")]})
    env = {} if place == "same" else elsewhere(tmp_path)
    for _ in range(ROUNDS):
        run = ("run", *options(volume), "one", "go")
        processes = [await made.start(*run), await made.start(*run, env=env)]
        winner, loser = sorted(await asyncio.gather(*map(ended, processes)), key=lambda result: result.code)
        assert (winner.code, winner.types[-1]) == (0, "completeRun"), winner.stderr
        by = "another job of yours:" if place == "same" else "a job of another user or machine,"
        refused(loser, 2, f"the volume {volume} is in use by {by}", "name another with --workspace volume:NAME")
        assert len([line for line in loser.stderr.splitlines() if "volume" in line]) == 1
    assert engine.containers(made.instance) == []


async def test_a_killed_job_keeps_the_volume_while_its_sandbox_works(project: Make, volume: str) -> None:
    """The next job is refused with a remedy; `prune --all` ends the Sandbox, and the next job starts."""
    made = project(ONE, {"one": [use(sleeping(90)), say("done")]})
    async with working(made, volume) as process:
        process.send_signal(signal.SIGKILL)
        await process.communicate()
    made.script({"one": [say("next")]})
    refused(await made.run("one", "go", *options(volume)), 2, "in use by the container j-", "`prune --all` ends it")
    assert (await made.command("prune", "--all")).code == 0
    following = await made.run("one", "go", *options(volume))
    assert following.code == 0, following.stderr
    assert engine.containers(made.instance) == []


async def test_a_killed_orchestrator_does_not_keep_the_volume(project: Make, tmp_path: Path, volume: str) -> None:
    """Without a Sandbox, the next job of its user starts at once; elsewhere the sentence names what to remove."""
    made = project(ONE, {"one": [use(sleeping(90)), say("done")]})
    async with working(made, volume) as process:
        process.send_signal(signal.SIGKILL)
        await process.communicate()
    name = volume_lease_name(volume)
    docker("rm", "--force", *(each for each in engine.containers(made.instance) if each != name))
    assert engine.containers(made.instance) == [name]
    made.script({"one": [say("next")]})
    run = ("one", "go", *options(volume))
    refused(await made.run(*run, env=elsewhere(tmp_path)), 2, f"`docker rm {name}` frees the volume")
    following = await made.run(*run)
    assert following.code == 0, following.stderr
    assert engine.containers(made.instance) == []
    assert (await made.command("prune", "--all")).code == 0


async def test_what_else_has_the_name_of_the_lease_stays(project: Make, volume: str) -> None:
    """A container that is no lease, and one whose deadline is to come, are refused; a lease that is past it goes."""
    made = project(ONE, {"one": [say("done")]})
    name = volume_lease_name(volume)
    own = ("--label", "app.kubernetes.io/managed-by=perstack-orch")
    lease = (*own, "--label", "perstack.ai/lease=of-another")
    past, later = ("--label", "perstack.ai/deadline=1000"), ("--label", "perstack.ai/deadline=99999999999")
    for labels, code in (((), 2), (own, 2), (lease, 2), ((*lease, *later), 2), ((*lease, *past), 0)):
        container = docker("create", "--name", name, *labels, engine.runtime_image()).strip()
        try:
            result = await made.run("one", "go", *options(volume))
            assert result.code == code, result.stderr
            left = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"id={container}").split()
            assert left == ([container] if code else [])
        finally:
            docker("rm", "--force", container)


async def test_prune_removes_the_lease_of_a_killed_orchestrator(project: Make, volume: str) -> None:
    """Nothing of it is left then, and a lease that is held stays."""
    made = project(ONE, {"one": [use(sleeping(90)), say("done")]})
    name = volume_lease_name(volume)
    async with working(made, volume) as process:
        assert (await made.command("prune")).stdout == b""
        process.send_signal(signal.SIGKILL)
        await process.communicate()
    docker("rm", "--force", *(each for each in engine.containers(made.instance) if each != name))
    assert (await made.command("prune")).stdout.decode().split() == [name]
    assert engine.containers(made.instance) == []
    assert (await made.command("prune", "--all")).code == 0


async def test_a_killed_job_is_resumed_in_its_volume(project: Make, volume: str) -> None:
    """Its Sandbox works on; the orchestrator that follows takes the lease over, and has it until the end."""
    made = project(ONE, {"one": [use(sleeping(6)), say("done")]})
    async with working(made, volume) as process:
        process.send_signal(signal.SIGKILL)
        await process.communicate()
    process = await made.start("resume", *options(volume), "j")
    await asyncio.sleep(3)
    assert volume_lease_name(volume) in engine.containers(made.instance)
    result = await ended(process)
    assert (result.code, result.types[-1]) == (0, "completeRun"), result.stderr
    assert engine.containers(made.instance) == []


async def test_delegates_and_later_turns_share_the_volume(project: Make, volume: str) -> None:
    """Runs of one job work in it at the same time, and so does the job when it continues."""
    made = project(
        TEAM,
        {
            "boss": [use(ask("left", "go"), ask("right", "go")), say("both")],
            "left": [use(sleeping(1)), say("left")],
            "right": [use(sleeping(1)), say("right")],
        },
    )
    result = await made.run("boss", "go", *options(volume))
    assert result.code == 0, result.stderr
    assert sorted(event.text for event in result.of(CompleteRun)) == ["both", "left", "right"]
    made.script({"boss": [say(""), say(""), say("more")]})
    more = await made.run("boss", "more", "--continue", *options(volume))
    assert more.code == 0, more.stderr
    assert engine.containers(made.instance) == []


async def test_a_shell_has_the_volume_alone(project: Make, volume: str) -> None:
    """Like a job: neither opens while the other works."""
    made = project(ONE, {"one": [use(sleeping(90)), say("done")]})
    shell = ("shell", *options(volume), "one", "--", "true")
    async with working(made, volume):
        opened = await made.command(*shell)
        assert (opened.code, f"the volume {volume} is in use" in opened.stderr) == (2, True)
        told = await made.command("explain", *options(volume), "one")
        assert f"the volume {volume} is in use by the container j-" in told.stdout.decode()
    await made.command("prune", "--all")
    assert (await made.command(*shell)).code == 0


async def test_an_engine_gives_a_lease_to_one_of_many(project: Make, volume: str) -> None:
    """Of those that ask at once one gets it; each other learns whose it is."""
    name = volume_lease_name(volume)
    mark = "perstack.ai/test-of-leases"
    made = project(ONE, {})
    async with connect(made.environment, engine.runtime_image()) as backend:
        wanted = [{"app.kubernetes.io/managed-by": "perstack-orch", mark: str(number)} for number in range(8)]
        holders = await asyncio.gather(*(backend.take_lease(name, engine.runtime_image(), each) for each in wanted))
        (winner,) = [number for number, holder in enumerate(holders) if holder is None]
        assert {holder[mark] for holder in holders if holder is not None} == {str(winner)}
        assert await backend.prune(wanted[winner]) == (name,)
        assert await backend.take_lease(name, engine.runtime_image(), wanted[0]) is None
        assert await backend.prune(wanted[0]) == (name,)
