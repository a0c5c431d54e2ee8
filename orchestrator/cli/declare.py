"""How a command declares its options: the fields of a class of options become options of typer's."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import typer

from orchestrator.plan.job_options import Option
from orchestrator.wire.frozen import Frozen


def with_options(shape: type[Frozen]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make typer read a command's options from the fields of `shape` that are annotated with an `Option`.

    The command's first parameter is then a `shape`; its other parameters stay as they are and come before the options.
    A field that the command does not take keeps its default.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        options = list(_parameters(shape, command.__name__))

        @functools.wraps(command)
        def parsed(**given: Any) -> int:
            chosen = {option.name: _frozen(given.pop(option.name)) for option in options}
            return command(shape(**chosen), **given)

        parameters = [*own, *options]
        parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # inspect.signature reads it
        parsed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return parsed

    return decorate


@functools.cache
def described(shape: type[Frozen]) -> Mapping[str, tuple[Any, Option, Any]]:
    """Return the type, the `Option` and the default of each field that has an `Option`, by the field's name.

    A class's own fields come before those that it inherits.
    """
    hints = get_type_hints(shape, include_extras=True)
    defaults = {field.name: _default(field) for field in msgspec.structs.fields(shape)}
    own = [name for name in defaults if name in shape.__annotations__]
    found = {}
    for name in dict.fromkeys((*own, *defaults)):
        kind, *extras = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        for option in extras:
            if isinstance(option, Option):
                found[name] = (kind, option, defaults[name])
    return found


def flags_of(name: str, option: Option) -> tuple[str, ...]:
    """Return the names of an option on the command line."""
    return option.flags or (f"--{name.replace('_', '-')}",)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _parameters(shape: type[Frozen], command: str) -> Iterator[inspect.Parameter]:
    for name, (kind, option, default) in described(shape).items():
        if option.commands is not None and command not in option.commands:
            continue
        declared = typer.Option(
            *flags_of(name, option),
            metavar=option.metavar,
            envvar=option.variable,
            min=option.least,
            help=option.help,
            rich_help_panel=option.panel,
        )
        # Typer knows no tuple of any length.
        known, initial = (list[str], list(default)) if get_origin(kind) is tuple else (kind, default)
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=initial, annotation=Annotated[known, declared]
        )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
