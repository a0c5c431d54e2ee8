"""The table of commands, and the group that imports only the command that is used."""

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from orchestrator.cli.broken_pipe import exit_on_broken_pipe
from orchestrator.cli.cwd_guard import refuse_workspace_cwd
from orchestrator.cli.help_page import HelpPage
from orchestrator.errors import OrchestratorError
from orchestrator.version import VERSION

if TYPE_CHECKING:
    from typer._click import Command as ClickCommand
    from typer._click import Context

_NAME = "perstack-orch"
_HELP = "Run Experts, each in its own container."
_INTERNAL = 3
_INTERRUPTED = 130
_COLUMNS = 110


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table.

    A module of `orchestrator.cli` has the command's name, and a function of that name with the command's options. The
    function imports its work, so that help and refused options cost no more imports than the options need. A command
    with `commands` is a group: the module of `image build` is `image_build`.
    """

    short_help: str
    hidden: bool = False
    commands: "Mapping[str, Command]" = field(default_factory=dict)


COMMANDS: Mapping[str, Command] = {
    "run": Command("Run an Expert; events go to stdout, for scripts."),
    "start": Command("Run an Expert as a conversation in the terminal."),
    "install": Command("Install the packages of all skills and write perstack.lock."),
    "explain": Command("Show what an Expert may read, reach and use."),
    "demo": Command("See two Experts work, without a key and a model."),
    "doctor": Command("Check whether a job could run here, with remedies."),
    "shell": Command("Open a shell in an Expert's Sandbox."),
    "key": Command("Keep providers' keys in the system's keyring."),
    "log": Command("Show what a job did: events, Runs, costs."),
    "record": Command("Write a job's model replies to a file that replays it."),
    "watch": Command("Follow a job in a cluster."),
    "cancel": Command("Cancel a job in a cluster."),
    "resume": Command("Finish a job that was interrupted or cancelled."),
    "prune": Command("Remove orphaned Sandboxes."),
    "build": Command("Build an image that contains one Expert."),
    "image": Command(
        "Build, pull, list and remove images of Sandboxes.",
        commands={
            "build": Command("Build the image of Sandboxes of this version."),
            "pull": Command("Pull the image of Sandboxes of this version."),
            "list": Command("List the images of Sandboxes at the engine."),
            "prune": Command("Remove the images of other versions."),
        },
    ),
    "rights": Command("Check the coordinator's account (run by helm test).", hidden=True),
    "coordinate": Command("Work the job in /job (runs in a Pod).", hidden=True),
    "tell": Command("Serve the records on a claim (runs in a Pod).", hidden=True),
}
"""The commands by name, in the order of `--help`."""


class CommandGroup(TyperGroup):
    """Lists the commands of `rows`, and imports one when it is called; the names of their modules begin with `prefix`.

    In `commands` each has a stub, which is all that help, completion and suggestions need.
    """

    rows: ClassVar[Mapping[str, Command]] = COMMANDS
    prefix: ClassVar[str] = ""

    def __init__(self, **attributes: Any) -> None:
        stubs = {
            name: TyperCommand(name, short_help=row.short_help, hidden=row.hidden) for name, row in self.rows.items()
        }
        super().__init__(**attributes | {"commands": stubs})

    def resolve_command(self, ctx: "Context", args: list[str]) -> "tuple[str | None, ClickCommand | None, list[str]]":
        """Find the command that `args` name, with all its options."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, stub if name is None else load_command(name, self.rows[name], self.prefix), rest


def load_command(name: str, row: Command, prefix: str = "") -> "ClickCommand":
    """Import the command `name` of a table; a group imports its commands when one of them is called."""
    if row.commands:
        return _load_group(name, row)
    module = f"{prefix}{name}"
    function = getattr(import_module(f"orchestrator.cli.{module}"), module)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(
        name,
        cls=HelpPage,
        context_settings={"max_content_width": _COLUMNS},
        short_help=row.short_help,
        hidden=row.hidden,
    )(exit_on_broken_pipe(function))
    return typer.main.get_command(single)


def _load_group(name: str, row: Command) -> "ClickCommand":
    cls = type("Group", (CommandGroup,), {"rows": row.commands, "prefix": f"{name}_"})
    group = typer.Typer(
        name=name,
        cls=cls,
        add_completion=False,
        rich_markup_mode=None,
        invoke_without_command=True,
        help=row.short_help,
    )
    group.callback()(_require_command)
    return typer.main.get_command(group)


def _require_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    help=_HELP,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code. Every failure becomes one sentence on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An Expert's text may contain characters that the encoding of stdout lacks.
        sys.stdout.reconfigure(errors="replace")
    try:
        code = app(args=arguments, prog_name=_NAME, standalone_mode=False)
    except typer.TyperException as error:
        return _complain(f"{error.format_message().rstrip('.')}; see {_path_of(error)} --help", 2)
    except OrchestratorError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a traceback does not help the user
        return _complain(f"internal error ({type(error).__name__}: {error}); please report it", _INTERNAL)
    return code if isinstance(code, int) else 0


def _path_of(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)  # only usage errors have one
    return context.command_path if context is not None else _NAME


def _complain(sentence: str, code: int) -> int:
    from orchestrator.cli.output.notices import write_message  # noqa: PLC0415 - only errors need it

    write_message(sentence, keep="\n")
    return code


def _version(requested: bool) -> None:  # noqa: FBT001 - typer's callback
    if requested:
        typer.echo(f"{_NAME} {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    *,
    _version_requested: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    _require_command(context)
    refuse_workspace_cwd(Path.cwd())
