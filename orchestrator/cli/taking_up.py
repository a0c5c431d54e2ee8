"""The commands that take up what was cut off, as they are typed; their bodies are imported when they run."""

import os
from typing import Annotated

import typer

from orchestrator.cli.history import Storage
from orchestrator.cli.options import RunOptions

_Backend = Annotated[str, typer.Option("--backend", "--runtime", metavar="docker|process", help="Where Experts run.")]


def resume(  # noqa: PLR0913 - typer reads the options from the signature
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    *,
    config: Annotated[str | None, typer.Option(help="perstack.toml to use; else the nearest one upward.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Unknown keys in perstack.toml are errors.")] = False,
    workspace: Annotated[str | None, typer.Option(help="Directory mounted at /workspace. [./workspace]")] = None,
    storage: Storage = "perstack",
    backend: _Backend = "docker",
    model: Annotated[str | None, typer.Option(help="Model of the provider.")] = None,
    provider: Annotated[str | None, typer.Option(help="API to call, as for run.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole job. [100]")] = None,
    timeout: Annotated[int | None, typer.Option(metavar="MS", min=1, help="For one generation. [300000]")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME", help="As for run. Repeatable.")] = None,
    env_path: Annotated[list[str] | None, typer.Option(metavar="FILE", help="As for run. Repeatable.")] = None,
    allow_domain: Annotated[list[str] | None, typer.Option(metavar="SKILL=HOST", help="As for run.")] = None,
    image: Annotated[str | None, typer.Option(help="Runtime image.")] = None,
    run_as: Annotated[str | None, typer.Option(metavar="UID[:GID]", help="User, else the workspace's owner.")] = None,
    events: Annotated[str, typer.Option(metavar="default|full", help="How much events carry.")] = "default",
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")] = False,
    run_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.001, help="For one Run; past it, it ends in error.")
    ] = None,
    job_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.001, help="For all of it; resumable.")
    ] = None,
) -> int:
    """Finish JOB where it was cut off or cancelled; its further events go to stdout."""
    from orchestrator.cli.run import run as work  # noqa: PLC0415 - it imports everything
    from orchestrator.cli.unfinished import coordinator  # noqa: PLC0415 - the same

    options = RunOptions(
        expert_key=coordinator(job, storage),
        query=None,
        config=config,
        strict=strict,
        workspace=workspace,
        storage=storage,
        backend=backend,
        model=model,
        provider=provider,
        max_steps=max_steps,
        timeout_ms=timeout,
        env=tuple(env or ()),
        env_path=tuple(env_path or ()),
        allow_domain=tuple(allow_domain or ()),
        image=image,
        run_as=run_as,
        events=events,
        verbose=verbose,
        continue_job=job,
        run_seconds=run_timeout,
        job_seconds=job_timeout,
    )
    return work(options, os.environ)


def prune(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also Sandboxes of jobs that were cut off and nobody works on.")
    ] = False,
    storage: Storage = "perstack",
    backend: _Backend = "docker",
) -> int:
    """Remove Sandboxes of this store's jobs that are past their deadline or whose job has ended; write their names."""
    from orchestrator.cli.unfinished import remove  # noqa: PLC0415 - it imports a backend

    return remove(storage, backend, os.environ, everything=everything)
