import subprocess
import sys

import pytest

import orchestrator

NAMES = [
    "BackendError",
    "BackendUnavailableError",
    "Config",
    "ConfigError",
    "DiskError",
    "ImageNotFoundError",
    "Job",
    "JobEvents",
    "JobOptions",
    "JobStatus",
    "MissingEnvError",
    "OrchestratorError",
    "Outcome",
    "ProviderSetting",
    "Receipt",
    "Recorded",
    "Resume",
    "SandboxLostError",
    "Store",
    "StoreError",
    "WarmLimit",
    "WireError",
    "find_config",
    "load_config",
    "make_job",
    "open_backend",
    "open_provider",
    "provider_of",
    "run_job",
]

ALIASES = {"Recorded": "EventLine"}
"""Public names that lead to something of another name."""


def _imported_by(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=30, check=True)
    return set(ran.stdout.split())


def test_the_names_are_frozen() -> None:
    """Programs that embed the package rely on these names: adding one is a decision, removing one breaks them."""
    assert orchestrator.__all__ == NAMES
    assert set(NAMES) <= set(dir(orchestrator))


def test_every_name_leads_to_something_of_our_own() -> None:
    """Each name is found, and a class has that same name."""
    for name in NAMES:
        found = getattr(orchestrator, name)
        assert found.__module__.startswith("orchestrator."), name
        assert found.__name__ == ALIASES.get(name, name.removesuffix("_config")), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    """An unknown name raises AttributeError, as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'Agent'"):
        orchestrator.Agent  # noqa: B018 - looking is the test


@pytest.mark.parametrize(("old", "new"), [("Budget", "WarmLimit"), ("GoOn", "Resume")])
def test_a_name_of_the_last_release_leads_to_the_new_one(old: str, new: str) -> None:
    """A DeprecationWarning states the new name."""
    with pytest.warns(DeprecationWarning, match=rf"^orchestrator.{old} is now orchestrator.{new}$"):
        assert getattr(orchestrator, old) is getattr(orchestrator, new)


def test_importing_the_package_imports_no_dependency() -> None:
    """The container imports `orchestrator.runtime` through this package and has few dependencies."""
    imported = _imported_by("import orchestrator")
    assert "orchestrator" in imported
    ours = {name for name in imported if name.startswith("orchestrator.")}
    assert ours == set()
    assert imported & {"pydantic", "h11", "mcp", "typer", "structlog", "asyncio"} == set()


def test_a_name_brings_only_its_own() -> None:
    """Making a Job imports no engine's client and no API's SDK."""
    imported = _imported_by("from orchestrator import make_job, open_backend, run_job")
    assert "orchestrator.jobs.run_job" in imported
    assert imported & {"h11", "anthropic", "openai", "typer"} == set()
