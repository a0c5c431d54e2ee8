import os
from pathlib import Path

import pytest

from orchestrator.config.environment import Environment, may_come_from_file, merge
from orchestrator.errors import ConfigError

DEFAULT = (".env", ".env.local")


def test_process_goes_before_files_and_the_first_file_before_others(tmp_path: Path) -> None:
    """The order is process environment, .env, .env.local; empty values of the process are ignored."""
    (tmp_path / ".env").write_text("A=file\nB=file\nEMPTY=from file\nQUOTED='a $B #c'\nexport E=\"x\\ny\"\nBARE\n")
    (tmp_path / ".env.local").write_text("B=local\nC=local\n")
    assert merge({"A": "process", "EMPTY": "", "D": "process"}, DEFAULT, tmp_path) == Environment(
        {
            "A": "process",
            "D": "process",
            "B": "file",
            "EMPTY": "from file",
            "QUOTED": "a $B #c",
            "E": "x\ny",
            "C": "local",
        },
        origins=dict.fromkeys(("B", "EMPTY", "QUOTED", "E"), ".env") | {"C": ".env.local"},
    )


def test_values_are_taken_as_they_are(tmp_path: Path) -> None:
    """A file cannot read other variables by reference."""
    (tmp_path / ".env").write_text("A=${SECRET}\n")
    assert merge({"SECRET": "s3cret"}, DEFAULT, tmp_path).values == {"SECRET": "s3cret", "A": "${SECRET}"}


def test_missing_files_are_ignored_unless_named(tmp_path: Path) -> None:
    """Missing default files are ignored; a missing named file is an error."""
    assert merge({"A": "1"}, DEFAULT, tmp_path) == Environment({"A": "1"})
    with pytest.raises(ConfigError, match=r"^--env-path nowhere\.env is not found; correct the path, or leave it out$"):
        merge({}, ["nowhere.env"], tmp_path, named=True)


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    """A link, which could point to any file of the host, is ignored with a note; if named, it is an error."""
    (tmp_path / "real").write_text("A=1\n")
    (tmp_path / ".env").symlink_to("real")
    assert merge({}, DEFAULT, tmp_path) == Environment({}, (".env: is a symbolic link; ignored",))
    with pytest.raises(
        ConfigError,
        match=r"^--env-path \.env cannot be used: is a symbolic link; name a file of your own, or leave it out$",
    ):
        merge({}, [".env"], tmp_path, named=True)


def test_what_is_no_text_file_is_ignored(tmp_path: Path) -> None:
    """Directories, pipes, huge files and bytes that are not UTF-8 are ignored with a note."""
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"A=\xff\n")
    (tmp_path / "huge").write_bytes(b"A=1\n" * 300_000)
    assert merge({}, ["dir", "pipe", "bytes", "huge"], tmp_path) == Environment(
        {},
        (
            "dir: is not a regular file; ignored",
            "pipe: is not a regular file; ignored",
            "bytes: is not UTF-8; ignored",
            "huge: has more than 1048576 bytes; ignored",
        ),
    )


@pytest.mark.parametrize(
    "name",
    [
        "ANTHROPIC_BASE_URL",
        "openai_base_url",
        "HTTP_PROXY",
        "https_proxy",
        "No_Proxy",
        "ALL_PROXY",
        "PERSTACK_PROXY_URL",
        "SSL_CERT_FILE",
        "ssl_cert_dir",
        "NPM_CONFIG_REGISTRY",
        "npm_config_registry",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "KUBECONFIG",
        "PATH",
        "LD_PRELOAD",
        "PYTHONPATH",
        "NODE_OPTIONS",
        "HOME",
    ],
)
def test_files_never_say_where_requests_go_whom_they_trust_or_what_runs(tmp_path: Path, name: str) -> None:
    """Such a line is ignored, with a note that does not contain the value; the process environment may set it."""
    (tmp_path / ".env").write_text(f"{name}=evil\nKEY=fine\n")
    assert merge({}, DEFAULT, tmp_path) == Environment(
        {"KEY": "fine"},
        (f".env: {name!r} can be set only in the environment, not in a file; ignored",),
        {"KEY": ".env"},
    )
    assert merge({name: "mine"}, (), tmp_path) == Environment({name: "mine"})


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "PROXY", "MY_PATH", "EXA_API_KEY", "DOCKERS"])
def test_other_names_may_come_from_files(name: str) -> None:
    """Names that the rules do not list may be set."""
    assert may_come_from_file(name)


def test_values_are_not_shown() -> None:
    """Values are secret, so the repr does not contain them."""
    assert "s3cret" not in repr(Environment({"A": "s3cret"}))
