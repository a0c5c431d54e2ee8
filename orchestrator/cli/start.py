"""`perstack-orch start`, as it is typed; its body is imported when it runs."""

import os
from typing import Annotated

import typer

from orchestrator.cli import arguments
from orchestrator.cli.options import RunOptions


def start(  # noqa: PLR0913 - typer reads the options from the signature
    expert: Annotated[
        str | None, typer.Argument(metavar="[EXPERT]", help="Key of the Expert; else you choose.")
    ] = None,
    query: Annotated[
        str | None, typer.Argument(metavar="[QUERY]", help="What it is to do; else you are asked.")
    ] = None,
    *,
    config: arguments.Config = None,
    strict: arguments.Strict = False,
    workspace: arguments.Workspace = None,
    storage: arguments.Storage = "perstack",
    backend: arguments.Backend = "docker",
    model: arguments.Model = None,
    provider: arguments.Provider = None,
    max_steps: arguments.MaxSteps = None,
    max_retries: arguments.MaxRetries = None,
    reasoning_budget: arguments.ReasoningBudget = None,
    timeout: arguments.Timeout = None,
    job_id: arguments.JobId = None,
    env: arguments.Env = None,
    env_path: arguments.EnvPath = None,
    allow_domain: arguments.AllowDomain = None,
    image: arguments.Image = None,
    run_as: arguments.RunAs = None,
    events: arguments.Events = "default",
    verbose: arguments.Verbose = False,
    continue_latest: arguments.ContinueLatest = False,
    continue_job: arguments.ContinueJob = None,
    resume_from: arguments.ResumeFrom = None,
    answers: arguments.Answers = False,
    run_timeout: arguments.RunTimeout = None,
    job_timeout: arguments.JobTimeout = None,
) -> int:
    """Run EXPERT as a conversation: its work live, its questions to you, and what you say next."""
    options = RunOptions(
        expert_key=expert or "",
        query=query,
        config=config,
        strict=strict,
        workspace=workspace,
        storage=storage,
        backend=backend,
        model=model,
        provider=provider,
        max_steps=max_steps,
        max_retries=max_retries,
        reasoning_budget=reasoning_budget,
        timeout_ms=timeout,
        job_id=job_id,
        env=tuple(env or ()),
        env_path=tuple(env_path or ()),
        allow_domain=tuple(allow_domain or ()),
        image=image,
        run_as=run_as,
        events=events,
        verbose=verbose,
        continue_latest=continue_latest,
        continue_job=continue_job,
        resume_from=resume_from,
        answers=answers,
        run_seconds=run_timeout,
        job_seconds=job_timeout,
    )
    from orchestrator.cli.talk import talk  # noqa: PLC0415 - it imports everything

    return talk(options, os.environ)
