"""The commands that read jobs back, as they are typed; their bodies are imported when they run."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Installation, Namespace, Prices, Storage, User, with_options
from orchestrator.cli.outside import refuse_found_store

_Text = str | None


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What `log` was asked for. `take` 0 is all."""

    user: User = None
    storage: Storage = "perstack"
    jobs: Annotated[bool, typer.Option("--jobs", help="List the jobs, the newest first.")] = False
    runs: Annotated[bool, typer.Option("--runs", help="Show the job's tree of Runs and what each used.")] = False
    job: Annotated[_Text, typer.Option(metavar="ID", help="Job to show; else the newest.")] = None
    run: Annotated[_Text, typer.Option(metavar="ID", help="Only events of this Run.")] = None
    checkpoint: Annotated[_Text, typer.Option(metavar="ID", help="A checkpoint, and events of its Run.")] = None
    step: Annotated[_Text, typer.Option(metavar="STEPS", help="5, >5, >=5, <5, <=5 or 1-10.")] = None
    type: Annotated[_Text, typer.Option(metavar="TYPE", help="Only events of this type.")] = None
    errors: Annotated[bool, typer.Option("--errors", help="Only errors and retries.")] = False
    tools: Annotated[bool, typer.Option("--tools", help="Only tool calls and their results.")] = False
    delegations: Annotated[bool, typer.Option("--delegations", help="Only delegations.")] = False
    filter: Annotated[
        _Text, typer.Option(metavar="EXPR", help="""For instance '.toolCalls[].toolName == "exec"'.""")
    ] = None
    take: Annotated[int, typer.Option(metavar="N", min=0, help="How many to show; 0 is all.")] = 100
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="How many to pass over first.")] = 0
    context: Annotated[int, typer.Option(metavar="N", min=0, help="Events to add on each side of a match.")] = 0
    messages: Annotated[bool, typer.Option("--messages", help="Show the conversation too.")] = False
    summary: Annotated[bool, typer.Option("--summary", help="Show only what the events add up to.")] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show events whole; with --runs, what each Run was granted.")
    ] = False
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False
    pretty: Annotated[bool, typer.Option("--pretty", help="Write it indented; implies --json.")] = False
    prices: Prices = None
    backend: Annotated[_Text, typer.Option(metavar="kubernetes", help="Of jobs that a cluster has worked.")] = None
    namespace: Namespace = None
    installation: Installation = None


@with_options(LogOptions)
def log(options: LogOptions) -> int:
    """Show what a job did: its events, its Runs, or the list of jobs. An event is shown if it passes all filters."""
    if options.backend is not None:
        from orchestrator.cli.away_history import show_away  # noqa: PLC0415 - it imports everything

        return show_away(options, os.environ)
    from orchestrator.cli.show import show  # noqa: PLC0415 - it imports every shape of the wire
    from orchestrator.users import store_of  # noqa: PLC0415 - not needed for help

    refuse_found_store(options.storage, Path.cwd())
    storage = str(store_of(Path(options.storage), options.user))
    return show(replace(options, storage=storage, json=options.json or options.pretty))


def record(  # noqa: PLR0913 - options of a command
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    *,
    output: Annotated[str | None, typer.Option(metavar="FILE", help="Where to write; else stdout.")] = None,
    user: User = None,
    storage: Storage = "perstack",
    backend: Annotated[str | None, typer.Option(metavar="kubernetes", help="Of a job that a cluster worked.")] = None,
    namespace: Namespace = None,
    installation: Installation = None,
) -> int:
    """Turn JOB into a file of replies, with which --provider scripted replays it without a model."""
    if backend is not None:
        from orchestrator.cli.away_history import record_away  # noqa: PLC0415 - it imports everything

        wanted = LogOptions(user=user, backend=backend, namespace=namespace, installation=installation)
        return record_away(wanted, job, output, os.environ)
    from orchestrator.cli.record import write_script  # noqa: PLC0415 - it imports every shape of the wire
    from orchestrator.users import store_of  # noqa: PLC0415 - not needed for help

    refuse_found_store(storage, Path.cwd())
    return write_script(job, output, str(store_of(Path(storage), user)))
