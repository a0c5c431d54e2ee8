"""How to go on with a job: the command that a person can copy."""

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

from orchestrator.cli.options import RunOptions

_OF_ONE_TURN = {"job_id", "continue_latest", "continue_job", "resume_from", "answers"}


def again(options: RunOptions, environ: Mapping[str, str], *command: str) -> str:
    """Write `perstack-orch COMMAND...` with the options that a job was begun with: so it is found, and goes on alike.

    What `environ` says, or `command` itself, is not said again.
    """
    verb, *rest = command
    words = (word for flag, value in _given(options, environ) if flag not in rest for word in _words(flag, value))
    return shlex.join(["perstack-orch", verb, *words, *rest])


def _given(options: RunOptions, environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(RunOptions, include_extras=True)
    for field in dataclasses.fields(RunOptions):
        value, hint = getattr(options, field.name), hints[field.name]
        if value == field.default or field.name in _OF_ONE_TURN or get_origin(hint) is not Annotated:
            continue
        option = next(each for each in get_args(hint) if isinstance(each, OptionInfo))
        if not (isinstance(option.envvar, str) and environ.get(option.envvar)):
            yield _flag(field.name, option), value


def _flag(name: str, option: OptionInfo) -> str:
    # Where an Option stands in an annotation, typer takes the place of its default for the first name.
    names = (option.default, *(option.param_decls or ()))
    written = f"--{name.replace('_', '-')}"
    return next((each for each in names if isinstance(each, str) and each.startswith("--")), written)


def _words(flag: str, value: Any) -> Iterator[str]:
    if value is True:
        yield flag
        return
    for each in value if isinstance(value, tuple) else (value,):
        yield from (flag, f"{each:g}" if isinstance(each, float) else str(each))
