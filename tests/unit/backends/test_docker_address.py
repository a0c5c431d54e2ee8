import hashlib
import json
from pathlib import Path

import pytest

from orchestrator.backends.docker_address import engine_address, engine_sockets, first_there, usual_sockets
from orchestrator.errors import BackendUnavailableError


def write_context(config: Path, name: str, host: str) -> None:
    """Make a context the way `docker context create` and `docker context use` do."""
    meta = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    (config / "config.json").write_text(json.dumps({"currentContext": name}))


def test_docker_host_wins(tmp_path: Path) -> None:
    """DOCKER_HOST is taken before any context."""
    (tmp_path / "config.json").write_text('{"currentContext": "other"}')
    environ = {"DOCKER_HOST": "unix:///tmp/d.sock", "DOCKER_CONFIG": str(tmp_path)}
    assert engine_address(environ) == "unix:///tmp/d.sock"


@pytest.mark.parametrize("host", ["127.0.0.1:2375", "localhost:2375", "[::1]:2375"])
def test_an_engine_behind_a_port_of_this_machine_is_taken(host: str) -> None:
    """Loopback is this machine."""
    assert engine_address({"DOCKER_HOST": f"tcp://{host}"}) == f"tcp://{host}"


@pytest.mark.parametrize(
    "host", ["ssh://me@far", "tcp://10.0.0.1:2375", "tcp://far:2376", "npipe:////./pipe/x", "junk"]
)
def test_an_engine_elsewhere_is_refused(host: str) -> None:
    """It could not mount the broker's socket, so the sentence says what to set."""
    with pytest.raises(BackendUnavailableError, match=r"DOCKER_HOST names .* set DOCKER_HOST to a local engine"):
        engine_address({"DOCKER_HOST": host})


def test_the_active_context_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `docker context use` chose is used."""
    write_context(tmp_path, "desk", "unix:///tmp/desk.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))  # the docker package reads it itself
    assert engine_address({"DOCKER_CONFIG": str(tmp_path)}) == "unix:///tmp/desk.sock"


def test_a_context_elsewhere_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the context."""
    write_context(tmp_path, "far", "ssh://me@far")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(BackendUnavailableError, match="the Docker context 'far' names the engine ssh://me@far"):
        engine_address({"DOCKER_CONFIG": str(tmp_path)})


def test_an_unknown_context_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that nothing stands behind is not taken for the default."""
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(BackendUnavailableError, match="the Docker context 'gone' cannot be read"):
        engine_address({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "gone"})


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    """The file to mend is in the sentence."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BackendUnavailableError, match=r"config\.json cannot be read"):
        engine_address({"DOCKER_CONFIG": str(tmp_path)})


def test_without_any_hint_the_usual_socket_is_taken(tmp_path: Path) -> None:
    """The default context is the usual socket."""
    assert engine_address({"HOME": str(tmp_path), "DOCKER_CONTEXT": "default"}) == "unix:///var/run/docker.sock"


def test_rootless_engines_are_found_where_they_are() -> None:
    """After Docker's own socket come those of the user, Docker before Podman, and root's Podman; all are guarded."""
    environ = {"XDG_RUNTIME_DIR": "/run/user/7"}
    usual = usual_sockets(environ)
    assert usual == tuple(
        map(Path, ("/var/run/docker.sock", "/run/user/7/docker.sock", "/run/user/7/podman/podman.sock",
                   "/run/podman/podman.sock"))
    )  # fmt: skip
    assert {path.resolve() for path in usual} <= set(engine_sockets(environ))


def test_the_first_that_is_there_is_taken(tmp_path: Path) -> None:
    """A rootless Podman answers for a user who has no other engine, and one that is hidden is passed over."""
    socket = tmp_path / "podman" / "podman.sock"
    socket.parent.mkdir()
    socket.touch()
    places = usual_sockets({"XDG_RUNTIME_DIR": str(tmp_path)})[1:]
    assert first_there(places) == socket
