"""Run Experts, each in a container of its own.

    job = make_job("fitness-assistant", "Start today's session", config=load_config("perstack.toml"), env=os.environ)
    async with (
        open_backend("docker", os.environ, image=job.image) as backend,
        run_job(job, backend=backend, store=Store(Path("perstack")), provider=provider_of(job)) as events,
    ):
        async for recorded in events:
            ...

The public names are imported on first use (PEP 562): the container has only part of this package's dependencies,
and must be able to import `orchestrator.runtime` without the host's.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.backends import open_backend
    from orchestrator.config import Config
    from orchestrator.config import find as find_config
    from orchestrator.config import load as load_config
    from orchestrator.continuation import GoOn
    from orchestrator.errors import (
        BackendError,
        BackendUnavailableError,
        ConfigError,
        DiskError,
        ImageNotFoundError,
        MissingEnvError,
        OrchestratorError,
        SandboxLostError,
        StoreError,
        WireError,
    )
    from orchestrator.job import run_job
    from orchestrator.job_events import JobEvents
    from orchestrator.outcome import Outcome
    from orchestrator.plan import Job
    from orchestrator.prewarm import Budget
    from orchestrator.providers import ProviderSetting, open_provider
    from orchestrator.receipt import Receipt
    from orchestrator.request import make_job, provider_of
    from orchestrator.store import Recorded, Store
    from orchestrator.wire.job import JobStatus

_HOMES = {
    "BackendError": "errors",
    "BackendUnavailableError": "errors",
    "Budget": "prewarm",
    "Config": "config",
    "ConfigError": "errors",
    "DiskError": "errors",
    "GoOn": "continuation",
    "ImageNotFoundError": "errors",
    "Job": "plan",
    "JobEvents": "job_events",
    "JobStatus": "wire.job",
    "MissingEnvError": "errors",
    "OrchestratorError": "errors",
    "Outcome": "outcome",
    "ProviderSetting": "providers",
    "Receipt": "receipt",
    "Recorded": "store",
    "SandboxLostError": "errors",
    "Store": "store",
    "StoreError": "errors",
    "WireError": "errors",
    "find_config": "config",
    "load_config": "config",
    "make_job": "request",
    "open_backend": "backends",
    "open_provider": "providers",
    "provider_of": "request",
    "run_job": "job",
}

_INSIDE = {"find_config": "find", "load_config": "load"}
"""Names that say here what their module's name says there."""

__all__ = [
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


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{home}"), _INSIDE.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
