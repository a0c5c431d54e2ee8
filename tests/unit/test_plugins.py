from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.backends import BACKENDS, find_backend, is_cluster, isolates, mounts_host
from orchestrator.errors import ConfigError
from orchestrator.plugins import Plugins
from orchestrator.sandbox.api import User

Install = Callable[[str, str], None]


@pytest.fixture
def plugins() -> Plugins[User]:
    """A table with one built-in."""
    return Plugins(
        User, noun="user", group="perstack_orch_test.users", builtin={"root": "tests.unit.test_plugins:ROOT"}
    )


ROOT = User(0, 0)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with one entry point and one module."""

    def make(name: str, source: str) -> None:
        info = tmp_path / "example_plugin-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-plugin\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[perstack_orch_test.users]\n{name} = {tmp_path.name}_plugin:SPEC\n")
        (tmp_path / f"{tmp_path.name}_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    return make


def test_a_builtin_is_imported_from_the_table(plugins: Plugins[User]) -> None:
    """A built-in name leads to the attribute of its module."""
    assert plugins.get("root") == User(0, 0)
    assert list(plugins.all_builtin()) == [User(0, 0)]


def test_an_installed_name_is_found(plugins: Plugins[User], install: Install) -> None:
    """A name that is not built in leads to the entry point of that name."""
    install("guest", "from orchestrator.sandbox.api import User\nSPEC = User(7, 8)\n")
    assert plugins.get("guest") == User(7, 8)
    assert plugins.names() == ("root", "guest")


def test_a_builtin_wins_over_an_installed_name(plugins: Plugins[User], install: Install) -> None:
    """An installed package cannot replace what is built in."""
    install("root", "raise RuntimeError\n")
    assert plugins.get("root") == User(0, 0)


def test_an_unknown_name_lists_the_known_ones(plugins: Plugins[User], install: Install) -> None:
    """The sentence has all names and the closest one."""
    install("guest", "")
    with pytest.raises(ConfigError) as caught:
        plugins.get("geust")
    assert str(caught.value) == "user 'geust' is not known; use one of root, guest; did you mean 'guest'?"
    assert plugins.find("geust") is None


def test_an_entry_point_that_fails_names_its_module(plugins: Plugins[User], install: Install, tmp_path: Path) -> None:
    """Whatever its import raises, the error names the entry point."""
    install("guest", "raise RuntimeError('no engine')\n")
    with pytest.raises(ConfigError) as caught:
        plugins.get("guest")
    assert str(caught.value) == (
        f"user 'guest' cannot be loaded from {tmp_path.name}_plugin:SPEC: no engine; install its package again"
    )


def test_an_entry_point_of_another_kind_is_refused(plugins: Plugins[User], install: Install, tmp_path: Path) -> None:
    """An entry point must lead to a description of the right class."""
    install("guest", "SPEC = 'guest'\n")
    with pytest.raises(ConfigError) as caught:
        plugins.get("guest")
    assert str(caught.value) == (
        f"user 'guest' cannot be used: {tmp_path.name}_plugin:SPEC is no User; install another version of its package"
    )


def test_every_builtin_backend_has_its_own_name() -> None:
    """The table's name and the description's name are the same."""
    assert tuple(spec.name for spec in BACKENDS.all_builtin()) == BACKENDS.builtin


def test_what_the_backends_are() -> None:
    """The facts by which the rest of the program decides, in place of a name."""
    facts = [
        (spec.name, spec.isolates, spec.unit, spec.mounts_host, spec.is_cluster) for spec in BACKENDS.all_builtin()
    ]
    assert facts == [
        ("docker", True, "container", True, False),
        ("kubernetes", True, "container", False, True),
        ("process", False, "process", False, False),
    ]
    assert [isolates("docker"), isolates("process"), isolates("unknown")] == [True, False, True]
    assert [is_cluster("kubernetes"), is_cluster("docker"), is_cluster("unknown")] == [True, False, False]
    assert [mounts_host("docker"), mounts_host("kubernetes"), mounts_host("unknown")] == [True, False, False]


def test_an_unknown_backend_is_one_sentence() -> None:
    """It names the known backends and the closest one."""
    with pytest.raises(ConfigError) as caught:
        find_backend("dokcer")
    assert str(caught.value).startswith("backend 'dokcer' is not known; use one of docker, kubernetes, process")
    assert str(caught.value).endswith("; did you mean 'docker'?")
