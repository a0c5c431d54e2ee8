"""Images at an engine: built, removed, and provided once."""

import asyncio
import logging
import os
import re

import pytest

from orchestrator.backends.docker.client import DockerClient
from orchestrator.backends.docker.endpoint import find_endpoint
from orchestrator.backends.docker.image_builder import ImageBuild, Step, build_image
from orchestrator.backends.docker.image_provision import labels_of, provide
from orchestrator.backends.docker.runtime_images import find_images, remove_images
from orchestrator.errors import ImageBuildError
from orchestrator.images.labels import BASE_LABEL, SOURCE_LABEL, VERSION_LABEL
from orchestrator.version import VERSION
from tests.support import engine as engines
from tests.support.images import docker, nameless, names, small_image, steps_at_work, until

pytestmark = pytest.mark.docker

SCRATCH = {"PERSTACK_BASE_IMAGE": "scratch"}


@pytest.fixture
def engine() -> DockerClient:
    """The engine of the tests."""
    return DockerClient(find_endpoint(os.environ), os.environ)


async def test_an_image_is_built_with_its_labels(engine: DockerClient, caplog: pytest.LogCaptureFixture) -> None:
    """The engine then has it, with version, base and digest; the log has a line why, and one at the end."""
    caplog.set_level(logging.INFO, "orchestrator")
    with small_image() as source:
        assert await labels_of(engine, source.name) is None
        await provide(engine, source, SCRATCH)
        labels = await labels_of(engine, source.name) or {}
    assert [labels.get(name) for name in (SOURCE_LABEL, BASE_LABEL, VERSION_LABEL)] == [
        *(source.context.digest, "scratch", VERSION),
    ]
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"building the image {source.name} on scratch, because the engine does not have it")
    assert re.fullmatch(rf"built the image {re.escape(source.name)} in \d+ s", last)


async def test_the_steps_are_reported(engine: DockerClient) -> None:
    """Each step of the Dockerfile, with its number; further names are given at the end."""
    steps: list[Step] = []
    with small_image() as source:
        other = f"also-{source.name}"
        build = ImageBuild(source.context, (source.name, other), "scratch")
        found = await build_image(engine, build, {}, steps.append)
        assert sorted(names(source.name)) == sorted((source.name, other))
        assert {(await engine.image(name))["Id"] for name in (source.name, other)} == {found}
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert steps[3] == Step(4, steps[0].total, "COPY Dockerfile /")


async def test_a_step_that_fails_shows_the_end_of_its_output(engine: DockerClient) -> None:
    """One sentence names image, base and step, and the lines of that step follow; nothing is left at the engine."""
    base = engines.runtime_image()
    with small_image("USER 0", "RUN echo before", "RUN for n in $(seq 30); do echo line $n; done; exit 3") as source:
        with pytest.raises(ImageBuildError) as caught:
            await provide(engine, source, {"PERSTACK_BASE_IMAGE": base})
        sentence, *lines = str(caught.value).splitlines()
        assert re.fullmatch(
            rf"the image {re.escape(source.name)} could not be built on {re.escape(base)}: step 6 of \d+ failed"
            r" \(exit code 3\); the end of its output:",
            sentence,
        )
        assert lines == [f"  line {number}" for number in range(16, 31)]
        assert (names(source.name), nameless()) == ([], [])


async def test_a_cancelled_build_ends_at_the_engine(engine: DockerClient) -> None:
    """The step's container is gone within seconds, and no image without a name is left."""
    marker = f"echo cancelled-{os.getpid()}"
    with small_image("USER 0", f"RUN {marker}; sleep 50") as source:
        build = asyncio.create_task(provide(engine, source, {"PERSTACK_BASE_IMAGE": engines.runtime_image()}))
        await until(lambda: steps_at_work(marker) != [])
        build.cancel()
        with pytest.raises(asyncio.CancelledError):
            await build
        await until(lambda: not steps_at_work(marker) and not nameless())


async def test_a_base_that_cannot_be_pulled_is_named(engine: DockerClient) -> None:
    """The sentence has the engine's reason, and names the setting for another base."""
    with (
        small_image() as source,
        pytest.raises(
            ImageBuildError, match=r"does not have its base image 127\.0\.0\.1:1/base:1 .*refused.* PERSTACK_BASE_IMAGE"
        ),
    ):
        await provide(engine, source, {"PERSTACK_BASE_IMAGE": "127.0.0.1:1/base:1"})


async def test_an_image_that_two_need_is_built_once(engine: DockerClient, caplog: pytest.LogCaptureFixture) -> None:
    """The second waits for the first, logs that, and builds nothing."""
    caplog.set_level(logging.INFO, "orchestrator")
    with small_image() as source:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(provide(engine, source, SCRATCH))
    told = [record.getMessage() for record in caplog.records]
    assert sum(text.startswith("built the image") for text in told) == 1
    assert f"another process prepares the image {source.name}; waiting for it" in told


async def test_only_names_that_nobody_chose_are_removed(engine: DockerClient) -> None:
    """An image that a person named keeps that name; one that a container uses stays; one in `keep` stays."""
    with (
        small_image(repository="perstack-orch-runtime") as plain,
        small_image("COPY Dockerfile /used", repository="perstack-orch-runtime") as used,
        small_image("COPY Dockerfile /kept", repository="perstack-orch-runtime") as kept,
    ):
        for source in (plain, used, kept):
            await provide(engine, source, SCRATCH)
        mine = f"mine-{plain.name}"
        docker("tag", plain.name, mine)
        container = docker("create", used.name, "/nothing").strip()
        # Other tests have images too.
        ours = [each for each in await find_images(engine) if {plain.name, used.name, kept.name} & set(each.names)]
        try:
            removed = await remove_images(engine, ours, keep=(kept.name,))
        finally:
            docker("rm", container)
        assert removed == [plain.name]
        assert names(plain.name) == [mine]
        assert (names(used.name), names(kept.name)) == ([used.name], [kept.name])
