"""The command line. A command's body is imported when it runs, so that `--help` is fast."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator.cli import history, taking_up
from orchestrator.cli.options import RunOptions
from orchestrator.errors import OrchestratorError

_INTERNAL = 3
_INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run Experts, each in a container of its own.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit code. Whatever fails, a person gets a sentence."""
    try:
        code = app(args=arguments, prog_name="perstack-orch", standalone_mode=False)
    except typer.TyperException as error:
        return _complain(f"{error.format_message().rstrip('.')}; see perstack-orch run --help", 2)
    except OrchestratorError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        # Else the interpreter's own flush at its end would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _INTERNAL
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody at a terminal
        return _complain(f"internal error ({type(error).__name__}: {error}); please report it", _INTERNAL)
    return code if isinstance(code, int) else 0


def _complain(sentence: str, code: int) -> int:
    from orchestrator.cli.render import plain  # noqa: PLC0415 - needed only when something is wrong

    text = plain(sentence, keep="\n")
    sys.stderr.write(f"perstack-orch: {text}\n")
    return code


def _version(asked: bool) -> None:  # noqa: FBT001 - typer's callback
    if asked:
        from importlib import metadata  # noqa: PLC0415 - it imports a mail parser

        typer.echo(f"perstack-orch {metadata.version('perstack-orch')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run Experts, each in a container of its own."""


@app.command(context_settings={"max_content_width": 110})
def run(  # noqa: PLR0913 - typer reads the options from the signature
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="Key of the Expert in perstack.toml.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What it is to do; after -- it may begin with a dash.")],
    *,
    config: Annotated[str | None, typer.Option(help="perstack.toml to use; else the nearest one upward.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Unknown keys in perstack.toml are errors.")] = False,
    workspace: Annotated[str | None, typer.Option(help="Directory mounted at /workspace. [./workspace]")] = None,
    storage: Annotated[
        str, typer.Option(envvar="PERSTACK_STORAGE_PATH", help="Directory of job records.")
    ] = "perstack",
    backend: Annotated[
        str, typer.Option("--backend", "--runtime", metavar="docker|process", help="Where Experts run.")
    ] = "docker",
    model: Annotated[str | None, typer.Option(help="Model of the provider.")] = None,
    provider: Annotated[str | None, typer.Option(help="API to call: anthropic, scripted.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Steps of the whole job. [100]")] = None,
    max_retries: Annotated[int | None, typer.Option(min=0, help="Retries of one generation. [5]")] = None,
    reasoning_budget: Annotated[
        str | None, typer.Option(metavar="LEVEL|TOKENS", help="none, minimal, low, medium, high, or tokens. [low]")
    ] = None,
    timeout: Annotated[int | None, typer.Option(metavar="MS", min=1, help="For one generation. [300000]")] = None,
    job_id: Annotated[str | None, typer.Option(help="Id of the new job.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Variable given to EXPERT's skills and exec. Repeatable.")
    ] = None,
    env_path: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Env file, instead of .env and .env.local. Repeatable.")
    ] = None,
    allow_domain: Annotated[
        list[str] | None, typer.Option(metavar="SKILL=HOST", help="Let a skill reach a host. Repeatable.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Runtime image.")] = None,
    run_as: Annotated[str | None, typer.Option(metavar="UID[:GID]", help="User, else the workspace's owner.")] = None,
    events: Annotated[
        str, typer.Option(metavar="default|full", help="Whether events carry the whole conversation.")
    ] = "default",
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")] = False,
    continue_latest: Annotated[bool, typer.Option("--continue", help="Go on with the most recent job.")] = False,
    continue_job: Annotated[str | None, typer.Option(metavar="JOB", help="Go on with this job.")] = None,
    resume_from: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="Go on from this checkpoint of --continue-job.")
    ] = None,
    answers: Annotated[
        bool, typer.Option("-i", "--interactive-tool-call-result", help="QUERY answers the Expert's question.")
    ] = False,
) -> int:
    """Run EXPERT with QUERY; its events go to stdout, one JSON object a line."""
    options = RunOptions(
        expert_key=expert,
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
    )
    from orchestrator.cli.run import run as work  # noqa: PLC0415 - it imports everything

    return work(options, os.environ)


app.command(context_settings={"max_content_width": 110})(history.log)
app.command(context_settings={"max_content_width": 110})(history.record)
app.command(context_settings={"max_content_width": 110})(taking_up.resume)
app.command(context_settings={"max_content_width": 110})(taking_up.prune)
