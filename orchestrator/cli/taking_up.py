"""The commands that take up what was cut off, as they are typed; their bodies are imported when they run."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Backend, ClusterOptions, RunOptions, Storage, User, with_options
from orchestrator.cli.outside import refuse_found_store

_OF_OTHER_COMMANDS = {"job_id", "continue_latest", "continue_job", "resume_from", "answers"}
_WHERE = {"namespace", "installation", "coordinator", "claim", "claim_mount"}


@with_options(RunOptions, lambda name: name not in _OF_OTHER_COMMANDS)
def resume(
    options: RunOptions,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    *,
    after: Annotated[
        int | None, typer.Option(metavar="POSITION", min=0, help="First write the stored events after this one.")
    ] = None,
) -> int:
    """Finish JOB where it was cut off or cancelled; its further events go to stdout."""
    from orchestrator.cli.cluster import is_submitted  # noqa: PLC0415 - not needed for help
    from orchestrator.cli.run import run as work  # noqa: PLC0415 - it imports everything
    from orchestrator.cli.unfinished import coordinator  # noqa: PLC0415 - the same
    from orchestrator.users import store_of  # noqa: PLC0415 - not needed for help

    if is_submitted(options):
        return work(replace(options, continue_job=job, after=after), os.environ)
    refuse_found_store(options.storage, Path.cwd())
    expert_key = coordinator(job, str(store_of(Path.cwd() / options.storage, options.user)))
    return work(replace(options, expert_key=expert_key, continue_job=job, after=after), os.environ)


@with_options(ClusterOptions, _WHERE.__contains__)
def prune(
    options: ClusterOptions,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also Sandboxes of jobs that were cut off and nobody works on.")
    ] = False,
    user: User = None,
    storage: Storage = "perstack",
    backend: Backend = "docker",
) -> int:
    """Remove Sandboxes of this store's jobs that are past their deadline or whose job has ended; write their names.

    In a cluster whatever ended jobs left is removed but users' claims, of all users if none is named.
    """
    if backend == "kubernetes" and options.coordinator == "cluster":
        from orchestrator.cli.attending import prune as clear  # noqa: PLC0415 - it imports everything

        return clear(options, user, os.environ)
    from orchestrator.cli.unfinished import remove  # noqa: PLC0415 - it imports a backend
    from orchestrator.users import store_of  # noqa: PLC0415 - not needed for help

    refuse_found_store(storage, Path.cwd())
    return remove(str(store_of(Path.cwd() / storage, user)), backend, options, os.environ, everything=everything)
