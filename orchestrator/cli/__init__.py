"""The command line. A command's body is imported when it runs, so that `--help` is fast."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator.cli import arguments, history, install, start, taking_up
from orchestrator.cli.options import RunOptions
from orchestrator.errors import OrchestratorError

_NAME = "perstack-orch"
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
        code = app(args=arguments, prog_name=_NAME, standalone_mode=False)
    except typer.TyperException as error:
        return _complain(f"{error.format_message().rstrip('.')}; see {_command(error)} --help", 2)
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


def _command(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)  # only errors of usage know the command they happened in
    return context.command_path if context is not None else _NAME


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
        run_seconds=run_timeout,
        job_seconds=job_timeout,
    )
    from orchestrator.cli.run import run as work  # noqa: PLC0415 - it imports everything

    return work(options, os.environ)


app.command(context_settings={"max_content_width": 110})(start.start)
app.command(context_settings={"max_content_width": 110})(install.install)
app.command(context_settings={"max_content_width": 110})(history.log)
app.command(context_settings={"max_content_width": 110})(history.record)
app.command(context_settings={"max_content_width": 110})(taking_up.resume)
app.command(context_settings={"max_content_width": 110})(taking_up.prune)
