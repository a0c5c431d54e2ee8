"""The commands that read jobs back, as they are typed; their bodies are imported when they run."""

from dataclasses import dataclass
from typing import Annotated

import typer

Storage = Annotated[str, typer.Option(envvar="PERSTACK_STORAGE_PATH", help="Directory of job records.")]


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What `log` was asked for; None is an option that was not given. `take` 0 is all."""

    storage: str = "perstack"
    jobs: bool = False
    runs: bool = False
    job: str | None = None
    run: str | None = None
    checkpoint: str | None = None
    step: str | None = None
    type: str | None = None
    errors: bool = False
    tools: bool = False
    delegations: bool = False
    filter: str | None = None
    take: int = 100
    offset: int = 0
    context: int = 0
    messages: bool = False
    summary: bool = False
    verbose: bool = False
    json: bool = False
    pretty: bool = False


def log(  # noqa: PLR0913 - typer reads the options from the signature
    *,
    storage: Storage = "perstack",
    jobs: Annotated[bool, typer.Option("--jobs", help="List the jobs, the newest first.")] = False,
    runs: Annotated[bool, typer.Option("--runs", help="Show the job's tree of Runs and what each used.")] = False,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Job to show; else the newest.")] = None,
    run: Annotated[str | None, typer.Option(metavar="ID", help="Only events of this Run.")] = None,
    checkpoint: Annotated[str | None, typer.Option(metavar="ID", help="A checkpoint, and events of its Run.")] = None,
    step: Annotated[str | None, typer.Option(metavar="STEPS", help="5, >5, >=5, <5, <=5 or 1-10.")] = None,
    event_type: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only events of this type.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only errors and retries.")] = False,
    tools: Annotated[bool, typer.Option("--tools", help="Only tool calls and their results.")] = False,
    delegations: Annotated[bool, typer.Option("--delegations", help="Only delegations.")] = False,
    expression: Annotated[
        str | None, typer.Option("--filter", metavar="EXPR", help="""For instance '.toolCalls[].toolName == "exec"'.""")
    ] = None,
    take: Annotated[int, typer.Option(metavar="N", min=0, help="How many to show; 0 is all.")] = 100,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="How many to pass over first.")] = 0,
    context: Annotated[int, typer.Option(metavar="N", min=0, help="Events to add on each side of a match.")] = 0,
    messages: Annotated[bool, typer.Option("--messages", help="Show the conversation too.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Show only what the events add up to.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show events whole.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
    pretty: Annotated[bool, typer.Option("--pretty", help="Write it indented; implies --json.")] = False,
) -> int:
    """Show what a job did: its events, its Runs, or the list of jobs. An event is shown if it passes all filters."""
    options = LogOptions(
        storage=storage,
        jobs=jobs,
        runs=runs,
        job=job,
        run=run,
        checkpoint=checkpoint,
        step=step,
        type=event_type,
        errors=errors,
        tools=tools,
        delegations=delegations,
        filter=expression,
        take=take,
        offset=offset,
        context=context,
        messages=messages,
        summary=summary,
        verbose=verbose,
        json=json or pretty,
        pretty=pretty,
    )
    from orchestrator.cli.show import show  # noqa: PLC0415 - it imports every shape of the wire

    return show(options)


def record(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    *,
    output: Annotated[str | None, typer.Option(metavar="FILE", help="Where to write; else stdout.")] = None,
    storage: Storage = "perstack",
) -> int:
    """Turn JOB into a file of replies, with which --provider scripted replays it without a model."""
    from orchestrator.cli.record import write_script  # noqa: PLC0415 - it imports every shape of the wire

    return write_script(job, output, storage)
