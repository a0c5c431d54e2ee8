from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.config.registries import NPM, Registries, find_registries, require_https
from orchestrator.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home with registries in the files of npm and pip."""
    (tmp_path / ".npmrc").write_text(
        "fund=false\nregistry = https://npm.example/mirror/\n//npm.example/:_authToken=x\n"
    )
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text("[global]\nindex-url = https://me:secret@py.example/simple\n")
    return tmp_path


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Registries("https://npm.example/mirror/", "https://py.example/simple")),
        ({"npm_config_registry": "https://a.example/"}, Registries("https://a.example/", "https://py.example/simple")),
        ({"NPM_CONFIG_REGISTRY": "https://a.example/"}, Registries("https://a.example/", "https://py.example/simple")),
        (
            {"UV_DEFAULT_INDEX": "https://u:p@b.example/x", "PIP_INDEX_URL": "https://c.example/"},
            Registries("https://npm.example/mirror/", "https://b.example/x"),
        ),
        ({"PIP_INDEX_URL": "https://c.example/"}, Registries("https://npm.example/mirror/", "https://c.example/")),
    ],
)
def test_variables_go_before_files(home: Path, environ: Mapping[str, str], expected: Registries) -> None:
    """Variables take precedence over files; credentials are removed from the URLs."""
    assert find_registries({"HOME": str(home), **environ}) == expected


def test_hosts_are_those_of_the_registries_and_of_pypis_files() -> None:
    """An install may reach these hosts and no others."""
    hosts = Registries(NPM, "https://py.example/simple").hosts
    assert hosts == ("registry.npmjs.org", "py.example", "files.pythonhosted.org")


@pytest.mark.parametrize("url", ["http://npm.example/", "https://npm.example:8443/", "", "file:///x"])
def test_only_https_on_its_port_leaves_a_sandbox(url: str) -> None:
    """Other URLs are refused when a package must be fetched; the error contains the URL."""
    with pytest.raises(ConfigError, match="cannot fetch packages from"):
        require_https([url])
