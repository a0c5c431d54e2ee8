"""The command line. A command's body is imported when it runs, so that `--help` is fast."""

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import away, explain, history, install, rights, shell, start, taking_up
from orchestrator.cli.help_page import HelpPage
from orchestrator.cli.options import RunOptions, with_options
from orchestrator.cli.outside import refuse_to_start_inside
from orchestrator.cli.unread import ends_unread
from orchestrator.errors import OrchestratorError
from orchestrator.version import VERSION

_NAME = "perstack-orch"
_INTERNAL = 3
_INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    help="Run Experts, each in a container of its own.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit code. Whatever fails, a person gets a sentence."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An Expert may say what the reader's encoding has no letters for.
        sys.stdout.reconfigure(errors="replace")
    try:
        code = app(args=arguments, prog_name=_NAME, standalone_mode=False)
    except typer.TyperException as error:
        return _complain(f"{error.format_message().rstrip('.')}; see {_path_of(error)} --help", 2)
    except OrchestratorError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody at a terminal
        return _complain(f"internal error ({type(error).__name__}: {error}); please report it", _INTERNAL)
    return code if isinstance(code, int) else 0


def _path_of(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)  # only errors of usage know the command they happened in
    return context.command_path if context is not None else _NAME


def _complain(sentence: str, code: int) -> int:
    from orchestrator.cli.render import plain  # noqa: PLC0415 - needed only when something is wrong

    text = plain(sentence, keep="\n")
    sys.stderr.write(f"perstack-orch: {text}\n")
    return code


def _version(asked: bool) -> None:  # noqa: FBT001 - typer's callback
    if asked:
        typer.echo(f"perstack-orch {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    *,
    _asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run Experts, each in a container of its own."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)
    refuse_to_start_inside(Path.cwd())


_WIDE = {"max_content_width": 110}


@app.command(cls=HelpPage, context_settings=_WIDE, short_help="Run an Expert; its events go to stdout, for scripts.")
@ends_unread
@with_options(RunOptions)
def run(
    options: RunOptions,
    expert: Annotated[str, typer.Argument(metavar="EXPERT", help="Key of the Expert in perstack.toml.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What it is to do; after -- it may begin with a dash.")],
) -> int:
    """Run EXPERT with QUERY; its events go to stdout, one JSON object a line."""
    from orchestrator.cli.run import run as work  # noqa: PLC0415 - it imports everything

    return work(replace(options, expert_key=expert, query=query), os.environ)


for _command, _short in (
    (start.start, "The same as a conversation in the terminal."),
    (install.install, "Fetch the packages of all skills, and write perstack.lock."),
    (explain.explain, "Say what an Expert may read, reach and use."),
    (shell.shell, "Open a shell in an Expert's Sandbox."),
    (history.log, "Show what a job did: events, Runs, what they cost."),
    (history.record, "Turn a job into a file of replies that replays it."),
    (away.watch, "Show a job that a cluster works, or worked."),
    (away.cancel, "End a job that a cluster works."),
    (taking_up.resume, "Finish a job that was cut off or cancelled."),
    (taking_up.prune, "Remove Sandboxes that nobody answers for."),
):
    app.command(cls=HelpPage, context_settings=_WIDE, short_help=_short)(ends_unread(_command))
app.command(hidden=True)(rights.rights)
app.command(hidden=True)(away.coordinate)
app.command(hidden=True)(away.tell)
