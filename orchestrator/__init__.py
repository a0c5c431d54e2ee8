"""Run Experts, each in its own container.

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
    from orchestrator.jobs.event_stream import JobEvents
    from orchestrator.jobs.outcome import Outcome
    from orchestrator.jobs.receipt import Receipt
    from orchestrator.jobs.resume import Resume
    from orchestrator.jobs.run_job import run_job
    from orchestrator.plan.job import Job
    from orchestrator.plan.job_options import JobOptions
    from orchestrator.plan.make_job import make_job, provider_of
    from orchestrator.pool.prewarm import WarmLimit
    from orchestrator.providers import ProviderSetting, open_provider
    from orchestrator.store import Recorded, Store
    from orchestrator.wire.job_record import JobStatus

_MODULES = {
    "BackendError": "errors",
    "BackendUnavailableError": "errors",
    "Config": "config",
    "ConfigError": "errors",
    "DiskError": "errors",
    "Resume": "jobs.resume",
    "ImageNotFoundError": "errors",
    "Job": "plan.job",
    "JobEvents": "jobs.event_stream",
    "JobOptions": "plan.job_options",
    "JobStatus": "wire.job_record",
    "MissingEnvError": "errors",
    "OrchestratorError": "errors",
    "Outcome": "jobs.outcome",
    "ProviderSetting": "providers",
    "Receipt": "jobs.receipt",
    "Recorded": "store",
    "SandboxLostError": "errors",
    "Store": "store",
    "StoreError": "errors",
    "WarmLimit": "pool.prewarm",
    "WireError": "errors",
    "find_config": "config",
    "load_config": "config",
    "make_job": "plan.make_job",
    "open_backend": "backends",
    "open_provider": "providers",
    "provider_of": "plan.make_job",
    "run_job": "jobs.run_job",
}

_NAMES_INSIDE = {"find_config": "find", "load_config": "load"}
"""Names that are shorter in their module, whose name has the missing word."""

_OLD_NAMES = {"Budget": "WarmLimit", "GoOn": "Resume"}
"""Old names, which lead to the new ones for one release."""

__all__ = [
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


def __getattr__(name: str) -> Any:
    if (renamed := _OLD_NAMES.get(name)) is not None:
        import warnings  # noqa: PLC0415 - the container imports this package and has no old names

        warnings.warn(f"orchestrator.{name} is now orchestrator.{renamed}", DeprecationWarning, stacklevel=2)
        name = renamed
    module = _MODULES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{module}"), _NAMES_INSIDE.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
