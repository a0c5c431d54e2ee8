import subprocess
import sys

import pytest

import orchestrator

NAMES = [
    "BackendError",
    "BackendUnavailableError",
    "Budget",
    "Config",
    "ConfigError",
    "DiskError",
    "GoOn",
    "ImageNotFoundError",
    "Job",
    "JobEvents",
    "JobStatus",
    "MissingEnvError",
    "OrchestratorError",
    "Outcome",
    "ProviderSetting",
    "Receipt",
    "Recorded",
    "SandboxLostError",
    "Store",
    "StoreError",
    "WireError",
    "find_config",
    "load_config",
    "make_job",
    "open_backend",
    "open_provider",
    "provider_of",
    "run_job",
]


def _imported_by(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=30, check=True)
    return set(ran.stdout.split())


def test_the_names_are_frozen() -> None:
    """Whoever embeds us relies on these: one more is a decision, one less breaks a program."""
    assert orchestrator.__all__ == NAMES
    assert set(NAMES) <= set(dir(orchestrator))


def test_every_name_leads_to_something_of_our_own() -> None:
    """Each is found, and where it is a class it is called what the name says."""
    for name in NAMES:
        found = getattr(orchestrator, name)
        assert found.__module__.startswith("orchestrator."), name
        assert found.__name__ == name.removesuffix("_config"), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As with any module."""
    with pytest.raises(AttributeError, match="no attribute 'Agent'"):
        orchestrator.Agent  # noqa: B018 - looking is the test


def test_importing_the_package_imports_no_dependency() -> None:
    """The container imports `orchestrator.runtime` through this package and has few of them."""
    imported = _imported_by("import orchestrator")
    assert "orchestrator" in imported
    ours = {name for name in imported if name.startswith("orchestrator.")}
    assert ours == set()
    assert imported & {"pydantic", "h11", "docker", "mcp", "typer", "structlog", "asyncio"} == set()


def test_a_name_brings_only_its_own() -> None:
    """Making a Job needs no engine's client and no API's SDK."""
    imported = _imported_by("from orchestrator import make_job, open_backend, run_job")
    assert "orchestrator.job" in imported
    assert imported & {"h11", "docker", "anthropic", "openai", "typer"} == set()
