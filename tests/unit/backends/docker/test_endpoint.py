import hashlib
import json
import os
from pathlib import Path

import pytest

from orchestrator.backends.docker.endpoint import (
    SshEndpoint,
    TcpEndpoint,
    UnixEndpoint,
    engine_sockets,
    find_endpoint,
)
from orchestrator.backends.docker.engine_tls import TlsFiles
from orchestrator.backends.docker.usual_sockets import first_existing, usual_sockets
from orchestrator.errors import BackendUnavailableError

PEM = ("ca.pem", "cert.pem", "key.pem")


def write_context(config: Path, name: str, host: str, *, skips: bool = False, files: tuple[str, ...] = ()) -> Path:
    """Make a context the way `docker context create` and `docker context use` do; return its directory of certificates.

    Docker CLI 28.2 writes the same, with `--docker host=…,ca=…,cert=…,key=…,skip-tls-verify=…`.
    """
    identifier = hashlib.sha256(name.encode()).hexdigest()
    meta, tls = config / "contexts" / "meta" / identifier, config / "contexts" / "tls" / identifier / "docker"
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": skips}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    (config / "config.json").write_text(json.dumps({"currentContext": name}))
    for file in files:
        tls.mkdir(parents=True, exist_ok=True)
        (tls / file).touch()
    return tls


def certificates(directory: Path, *names: str) -> Path:
    """Make a directory with empty files of these names."""
    directory.mkdir()
    for name in names:
        (directory / name).touch()
    return directory


def test_docker_host_wins(tmp_path: Path) -> None:
    """DOCKER_HOST takes precedence over any context."""
    write_context(tmp_path, "other", "unix:///tmp/other.sock")
    environ = {"DOCKER_HOST": "unix:///tmp/d.sock", "DOCKER_CONTEXT": "other", "DOCKER_CONFIG": str(tmp_path)}
    assert find_endpoint(environ) == UnixEndpoint(Path("/tmp/d.sock"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://127.0.0.1:2375", TcpEndpoint("127.0.0.1", 2375)),
        ("tcp://LocalHost", TcpEndpoint("localhost", 2375)),
        ("http://[::1]:99/base/", TcpEndpoint("::1", 99, path="/base")),
    ],
)
def test_an_engine_behind_a_port_of_this_machine_is_local(address: str, expected: TcpEndpoint) -> None:
    """An engine at a loopback address is on this machine; without a port Docker's own is used."""
    found = find_endpoint({"DOCKER_HOST": address})
    assert (found, found.remote) == (expected, False)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ssh://far", SshEndpoint("far")),
        ("ssh://me@Build-Box", SshEndpoint("Build-Box", "me")),
        (
            "ssh://me@10.0.0.7:2222/run/user/7/docker.sock",
            SshEndpoint("10.0.0.7", "me", 2222, "/run/user/7/docker.sock"),
        ),
        ("ssh://[fe80::1]:22/", SshEndpoint("fe80::1", None, 22)),
    ],
)
def test_an_engine_behind_ssh_is_remote(address: str, expected: SshEndpoint) -> None:
    """User, port and path are optional; a name keeps its case, because ssh compares it with its configuration."""
    found = find_endpoint({"DOCKER_HOST": address})
    assert (found, found.remote) == (expected, True)
    assert found.address == address.rstrip("/")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("junk", r"^DOCKER_HOST names junk, which is no address of an engine: use unix:///PATH, ssh://USER@HOST or"),
        ("unix://relative.sock", "which is no address of an engine"),
        ("https://far:2376", "which is no address of an engine"),
        ("tcp://", "which is no address of an engine"),
        ("tcp://[::1", "names an address that cannot be read"),
        ("tcp://far:port", "whose port is not a number below 65536"),
        ("ssh://far:99999", "whose port is not a number below 65536"),
        ("npipe:////./pipe/docker_engine", "a pipe of Windows: run perstack-orch inside WSL2"),
        ("ssh://", "which has no host or user for ssh"),
        ("ssh://-oProxyCommand=touch${IFS}x/", "which has no host or user for ssh"),
        ("ssh://-l@far", "which has no host or user for ssh"),
        ("ssh://far?x=1", "which has more than a host and a path"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(address: str, message: str) -> None:
    """The message names the variable and what to write; nothing that ssh would read as an option gets through."""
    with pytest.raises(BackendUnavailableError, match=message):
        find_endpoint({"DOCKER_HOST": address})


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    """The message is printed and logged."""
    with pytest.raises(BackendUnavailableError, match="names ssh://me@far, which has a password: remove it") as caught:
        find_endpoint({"DOCKER_HOST": "ssh://me:s3cret@far"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH"])
def test_certificates_are_used_if_any_variable_names_tls(tmp_path: Path, name: str) -> None:
    """The directory is DOCKER_CERT_PATH, else that of Docker's configuration; the port is that of TLS."""
    directory = certificates(tmp_path / ".docker", *PEM)
    environ = {"DOCKER_HOST": "tcp://far", "HOME": str(tmp_path), name: str(directory)}
    files = TlsFiles(directory, directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    found = find_endpoint(environ)
    assert (found, found.remote) == (TcpEndpoint("far", 2376, files), True)


def test_only_an_engine_behind_a_port_has_certificates(tmp_path: Path) -> None:
    """Variables for another engine do not matter for a socket."""
    environ = {"DOCKER_HOST": "unix:///tmp/d.sock", "DOCKER_CERT_PATH": str(tmp_path / "absent")}
    assert find_endpoint(environ) == UnixEndpoint(Path("/tmp/d.sock"))


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ((), r"c/ca\.pem does not exist, so the engine's certificate cannot be verified: set DOCKER_CERT_PATH"),
        (("ca.pem", "cert.pem"), r"c/key\.pem does not exist, and the engine's client needs both"),
        (("ca.pem", "key.pem"), r"c/cert\.pem does not exist, and the engine's client needs both"),
    ],
)
def test_a_missing_certificate_is_named(tmp_path: Path, present: tuple[str, ...], message: str) -> None:
    """The message has the path of the missing file."""
    directory = certificates(tmp_path / "c", *present)
    with pytest.raises(BackendUnavailableError, match=message):
        find_endpoint({"DOCKER_HOST": "tcp://far:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(directory)})


@pytest.mark.parametrize("file", PEM)
def test_a_damaged_certificate_is_named(tmp_path: Path, file: str) -> None:
    """The message names the file with other content, or the pair."""
    directory = certificates(tmp_path / "c", *PEM if file != "ca.pem" else ["ca.pem"])
    (directory / "ca.pem").write_text("junk")
    files = TlsFiles.found_in(directory)
    files = files if file == "ca.pem" else TlsFiles(directory, None, files.certificate, files.key)
    with pytest.raises(BackendUnavailableError, match=rf"{file} .*cannot be used"):
        files.context()


def test_the_active_context_is_followed(tmp_path: Path) -> None:
    """The context of `docker context use` is used."""
    write_context(tmp_path, "desk", "unix:///tmp/desk.sock")
    assert find_endpoint({"DOCKER_CONFIG": str(tmp_path)}) == UnixEndpoint(Path("/tmp/desk.sock"))


def test_docker_context_names_another_one(tmp_path: Path) -> None:
    """DOCKER_CONTEXT takes precedence over the active context."""
    write_context(tmp_path, "far", "ssh://me@far")
    write_context(tmp_path, "desk", "unix:///tmp/desk.sock")
    assert find_endpoint({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "far"}) == SshEndpoint("far", "me")


@pytest.mark.parametrize(("skips", "files"), [(False, PEM), (False, ("ca.pem",)), (True, PEM), (True, ())])
def test_a_context_has_certificates_of_its_own(tmp_path: Path, *, skips: bool, files: tuple[str, ...]) -> None:
    """Those of the environment are for DOCKER_HOST; a context may also switch verification off."""
    tls = write_context(tmp_path, "far", "tcp://far:2376", skips=skips, files=files)
    found = find_endpoint({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CERT_PATH": "/other", "DOCKER_TLS_VERIFY": "1"})
    authority, certificate, key = (tls / file if file in files else None for file in PEM)
    expected = TlsFiles(tls, authority, certificate, key, verifies=not skips)
    assert found == TcpEndpoint("far", 2376, expected)


def test_an_unknown_context_is_refused(tmp_path: Path) -> None:
    """An unknown context is not replaced by the default."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackendUnavailableError, match="there is no Docker context 'gone': see `docker context ls`"):
        find_endpoint({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "gone"})


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"Endpoints": []}', '{"Endpoints": {"docker": 1}}'])
def test_a_damaged_context_is_named(tmp_path: Path, content: str) -> None:
    """The message has the name, the file and the remedy."""
    write_context(tmp_path, "desk", "unix:///x")
    next(tmp_path.glob("contexts/meta/*/meta.json")).write_text(content)
    with pytest.raises(
        BackendUnavailableError, match=r"context 'desk' cannot be read \(.*meta\.json: .*create it again"
    ):
        find_endpoint({"DOCKER_CONFIG": str(tmp_path)})


@pytest.mark.parametrize("host", ["", 7])
def test_a_context_without_an_address_is_named(tmp_path: Path, host: str) -> None:
    """A context may be for other things than an engine."""
    write_context(tmp_path, "desk", host)
    with pytest.raises(BackendUnavailableError, match="the Docker context 'desk' has no address"):
        find_endpoint({"DOCKER_CONFIG": str(tmp_path)})


def test_a_context_with_a_bad_address_is_named(tmp_path: Path) -> None:
    """The message names the context, not a variable that is not set."""
    write_context(tmp_path, "win", "npipe:////./pipe/docker_engine")
    with pytest.raises(BackendUnavailableError, match=r"^the Docker context 'win' names .* inside WSL2"):
        find_endpoint({"DOCKER_CONFIG": str(tmp_path)})


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    """The message names the file to repair."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BackendUnavailableError, match=r"config\.json cannot be read"):
        find_endpoint({"DOCKER_CONFIG": str(tmp_path)})


def test_without_any_hint_the_usual_socket_is_taken(tmp_path: Path) -> None:
    """The default context means the usual socket."""
    environ = {"HOME": str(tmp_path), "DOCKER_CONTEXT": "default"}
    assert find_endpoint(environ) == UnixEndpoint(Path("/var/run/docker.sock"))


def test_engines_of_linux_and_macos_are_found_where_they_are() -> None:
    """After Docker's own socket come those of the user, Docker before Podman, and root's Podman; all are guarded."""
    environ = {"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/Users/me", "TMPDIR": "/var/folders/x/T"}
    usual = usual_sockets(environ)
    assert [str(path) for path in usual] == [
        "/var/run/docker.sock",
        "/run/user/7/docker.sock",
        "/run/user/7/podman/podman.sock",
        "/Users/me/.docker/run/docker.sock",
        "/Users/me/.docker/desktop/docker.sock",
        "/Users/me/.orbstack/run/docker.sock",
        "/Users/me/.colima/default/docker.sock",
        "/Users/me/.config/colima/default/docker.sock",
        "/Users/me/.rd/docker.sock",
        "/Users/me/.local/share/containers/podman/machine/podman.sock",
        "/var/folders/x/T/podman/podman-machine-default-api.sock",
        "/run/podman/podman.sock",
    ]
    assert {path.resolve() for path in usual} <= set(engine_sockets(environ))


def test_the_socket_of_the_active_context_is_guarded(tmp_path: Path) -> None:
    """No workspace may contain it; a context that cannot be read guards the usual ones."""
    write_context(tmp_path, "desk", f"unix://{tmp_path}/desk.sock")
    assert tmp_path.resolve() / "desk.sock" in engine_sockets({"DOCKER_CONFIG": str(tmp_path)})
    (tmp_path / "config.json").write_text("{")
    assert Path(os.path.realpath("/var/run/docker.sock")) in engine_sockets({"DOCKER_CONFIG": str(tmp_path)})


def test_the_first_that_is_there_is_taken(tmp_path: Path) -> None:
    """A rootless Podman is used if no other engine exists; a hidden socket is skipped."""
    socket = tmp_path / "podman" / "podman.sock"
    socket.parent.mkdir()
    socket.touch()
    places = usual_sockets({"XDG_RUNTIME_DIR": str(tmp_path)})[1:]
    assert first_existing(places) == socket
