"""Commands as they are typed: how to go on with a job, which a person can copy."""

import dataclasses
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Protocol, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

from orchestrator.cli.options import RunOptions

_OF_ONE_TURN = {"job_id", "continue_latest", "continue_job", "resume_from", "answers"}


def again(options: RunOptions, environ: Mapping[str, str], *command: str) -> str:
    """Write `perstack-orch COMMAND...` with the options that a job was begun with: so it is found, and goes on alike.

    What `environ` says, or `command` itself, is not said again.
    """
    verb, *rest = command
    words = typed(options, _OF_ONE_TURN, environ, rest)
    return shlex.join(["perstack-orch", verb, *words, *rest])


class _InCluster(Protocol):
    @property
    def namespace(self) -> str | None: ...
    @property
    def installation(self) -> str | None: ...


def only_where(options: _InCluster, user: str | None) -> RunOptions:
    """Give options that say nothing but where in a cluster the jobs of `user` are."""
    return RunOptions(user=user, namespace=options.namespace, installation=options.installation)


def whereabouts(
    options: _InCluster, user: str | None, environ: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, ...]:
    """Write the options that say where in a cluster the jobs of `user` are, as they are typed."""
    return tuple(typed(only_where(options, user), (), environ))


def typed(
    options: Any, without: Collection[str], environ: Mapping[str, str] = MappingProxyType({}), said: Sequence[str] = ()
) -> Iterator[str]:
    """Write options as they are typed, but for the fields `without` and flags that are `said` already.

    `options` is a dataclass of them, as for `with_options`. What `environ` says is not said again.
    """
    hints = get_type_hints(type(options), include_extras=True)
    for field in dataclasses.fields(options):
        value, hint = getattr(options, field.name), hints[field.name]
        if value == field.default or field.name in without or get_origin(hint) is not Annotated:
            continue
        option = next(each for each in get_args(hint) if isinstance(each, OptionInfo))
        flag = _flag(field.name, option)
        if flag not in said and not (isinstance(option.envvar, str) and environ.get(option.envvar)):
            yield from _words(flag, value)


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
