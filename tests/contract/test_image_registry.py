"""The image of Sandboxes from a registry."""

import asyncio
import base64
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.backends.docker.client import DockerClient
from orchestrator.backends.docker.endpoint import find_endpoint
from orchestrator.backends.docker.image_builder import ImageBuild, build_image
from orchestrator.backends.docker.image_provision import labels_of, provide, pull
from orchestrator.errors import BackendError, ConfigError
from orchestrator.images.context import ImageSource
from orchestrator.images.labels import SOURCE_LABEL, labels
from tests.support.images import docker, names, small_image
from tests.support.registry import PASSWORD, USER, Registry, registry

pytestmark = [pytest.mark.docker, pytest.mark.installed]


@pytest.fixture
def engine() -> DockerClient:
    """The engine of the tests."""
    return DockerClient(find_endpoint(os.environ), os.environ)


@pytest.fixture
def source() -> Iterator[ImageSource]:
    """An image that the engine does not have."""
    with small_image() as found:
        yield found


@pytest.fixture(scope="module")
def open_registry() -> Iterator[Registry]:
    """A registry without a login."""
    with registry() as found:
        yield found


async def _publish(engine: DockerClient, source: ImageSource, host: str, digest: str | None = None) -> None:
    """Push the image and remove it here; with `digest` its label has another one than that of its files."""
    there = f"{host}/{source.name}"
    build = ImageBuild(source.context, (there,), "scratch", labels(digest or source.context.digest, "scratch"))
    await build_image(engine, build, {})
    await asyncio.to_thread(docker, "push", "--quiet", there)
    await asyncio.to_thread(docker, "image", "rm", there)


async def test_an_image_is_pulled_before_it_is_built(
    engine: DockerClient, source: ImageSource, open_registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """It then has its own name only, and the log names where it came from."""
    caplog.set_level(logging.INFO, "orchestrator")
    await _publish(engine, source, open_registry.host)
    await provide(engine, source, {"PERSTACK_IMAGE_REGISTRY": open_registry.host})
    assert names(source.name) == [source.name]
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == (f"pulling the image {open_registry.host}/{source.name}, because the engine does not have it")
    assert [text.split()[0] for text in told] == ["pulling", "pulled"]


async def test_an_image_that_the_registry_does_not_have_is_built(
    engine: DockerClient, source: ImageSource, open_registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning has the registry's reason."""
    caplog.set_level(logging.WARNING, "orchestrator")
    environ = {"PERSTACK_IMAGE_REGISTRY": open_registry.host, "PERSTACK_BASE_IMAGE": "scratch"}
    await provide(engine, source, environ)
    assert names(source.name) == [source.name]
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith(f"the image {open_registry.host}/{source.name} could not be pulled (manifest for ")
    assert told.endswith("it is built here instead")


async def test_an_image_of_other_files_is_not_used(
    engine: DockerClient, source: ImageSource, open_registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """Its label has another digest: it is removed again, and the right one is built."""
    caplog.set_level(logging.WARNING, "orchestrator")
    await _publish(engine, source, open_registry.host, "0" * 64)
    there = f"{open_registry.host}/{source.name}"
    with pytest.raises(BackendError, match=f"the image {there} was not made from the files of this version"):
        await pull(engine, source, open_registry.host, {})
    assert names(source.name) == []
    environ = {"PERSTACK_IMAGE_REGISTRY": open_registry.host, "PERSTACK_BASE_IMAGE": "scratch"}
    await provide(engine, source, environ)
    assert (await labels_of(engine, source.name) or {})[SOURCE_LABEL] == source.context.digest
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith(f"the image {there} was not made from the files of this version")


@pytest.mark.parametrize("digest", [None, "0" * 64])
async def test_a_name_that_the_user_had_stays_where_it_was(
    engine: DockerClient, source: ImageSource, open_registry: Registry, digest: str | None
) -> None:
    """Whether the registry has the image of this version or another one, and whether the name had that image or not."""
    there = f"{open_registry.host}/{source.name}"
    await _publish(engine, source, open_registry.host, digest)
    build = ImageBuild(source.context, (there,), "scratch", {"of": "the user"})
    try:
        mine = await build_image(engine, build, {})
        await _pulled(engine, source, open_registry.host, digest)
        assert str((await engine.image(there))["Id"]) == mine
        await asyncio.to_thread(docker, "pull", "--quiet", there)
        theirs = str((await engine.image(there))["Id"])
        assert theirs != mine
        await _pulled(engine, source, open_registry.host, digest)
        assert str((await engine.image(there))["Id"]) == theirs
        assert sorted(names(source.name)) == sorted({there} if digest else {there, source.name})
    finally:
        await asyncio.to_thread(docker, "image", "rm", there)
        await asyncio.to_thread(docker, "image", "rm", mine)


async def _pulled(engine: DockerClient, source: ImageSource, host: str, digest: str | None) -> None:
    if digest is None:
        await pull(engine, source, host, {})
        return
    with pytest.raises(BackendError, match="was not made from the files of this version"):
        await pull(engine, source, host, {})


async def test_a_damaged_image_is_refused(engine: DockerClient, source: ImageSource) -> None:
    """The engine compares what comes with the digests of the registry, and the sentence has its reason."""
    with registry() as damaged:
        await _publish(engine, source, damaged.host)
        damaged.damage()
        with pytest.raises(BackendError, match=r"could not be pulled \(.+\)"):
            await pull(engine, source, damaged.host, {})
    assert names(source.name) == []


async def test_a_registry_that_is_gone(engine: DockerClient, source: ImageSource) -> None:
    """The sentence has the reason: nothing listens there."""
    with registry() as gone:
        host = gone.host
    with pytest.raises(BackendError, match=rf"the image {host}/.* could not be pulled \(.*connection refused\)"):
        await pull(engine, source, host, {})


async def test_a_registry_that_needs_a_login(engine: DockerClient, source: ImageSource, tmp_path: Path) -> None:
    """Without one the sentence names the command that logs in; the login of the docker command line counts."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with registry(closed=True) as closed:
        (tmp_path / "config.json").write_text(json.dumps({"auths": {closed.host: {"auth": login}}}))
        there = f"{closed.host}/{source.name}"
        build = ImageBuild(source.context, (there,), "scratch", labels(source.context.digest, "scratch"))
        await build_image(engine, build, {})
        await asyncio.to_thread(docker, "--config", str(tmp_path), "push", "--quiet", there)
        await asyncio.to_thread(docker, "image", "rm", there)
        with pytest.raises(BackendError, match=rf"it may need a login, `docker login {closed.host}`"):
            await pull(engine, source, closed.host, {})
        assert names(source.name) == []
        await pull(engine, source, closed.host, {"DOCKER_CONFIG": str(tmp_path)})
        assert names(source.name) == [source.name]
        (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {closed.host: "no-such-helper"}}))
        with pytest.raises(ConfigError, match=f"{tmp_path}/config.json cannot be read"):
            await pull(engine, source, closed.host, {"DOCKER_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    "host", ["https://registry.example", "-registry", "registry example", "registry.example/UPPER"]
)
async def test_a_name_that_is_no_registry(engine: DockerClient, source: ImageSource, host: str) -> None:
    """It is refused with its form, before any call to the engine."""
    with pytest.raises(ConfigError, match=r"write the registry as HOST, HOST:PORT or HOST/PATH"):
        await pull(engine, source, host, {})
