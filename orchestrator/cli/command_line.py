"""Commands for the user to copy: how to continue a job with the options that it was started with."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from orchestrator.cli.declare import described, flags_of
from orchestrator.cli.options import RecordsOptions, RunOptions
from orchestrator.cluster.job_request import JobRequest
from orchestrator.wire.frozen import Frozen

_RESUME = "resume"


def format_command(options: RunOptions, environ: Mapping[str, str], *command: str) -> str:
    """Return `perstack-orch COMMAND...` with the options that the job was started with, but those of a single query.

    Options that `environ` sets, or that are part of `command`, are left out.
    """
    verb, *rest = command
    arguments = format_options(options, _of_one_query(options), environ, rest)
    return shlex.join(["perstack-orch", verb, *arguments, *rest])


Located = RunOptions | RecordsOptions | JobRequest
"""Options that locate the jobs of one user in a cluster."""


def location_options(options: Located) -> RunOptions:
    """Return only those of the options that locate the jobs of their user in a cluster."""
    return RunOptions(user=options.user, namespace=options.namespace, installation=options.installation)


def format_location(options: Located, environ: Mapping[str, str] = MappingProxyType({})) -> tuple[str, ...]:
    """Return the arguments that locate the jobs of the options' user in a cluster."""
    return tuple(format_options(location_options(options), (), environ))


def format_options(
    options: Frozen,
    without: Collection[str],
    environ: Mapping[str, str] = MappingProxyType({}),
    given: Sequence[str] = (),
) -> Iterator[str]:
    """Return options as arguments, but for the fields `without` and flags that are `given` already.

    Options that `environ` sets are left out.
    """
    for name, (_, option, default) in described(type(options)).items():
        value, flag = getattr(options, name), _long(flags_of(name, option))
        is_set = option.variable is not None and environ.get(option.variable)
        if value != default and name not in without and flag not in given and not is_set:
            yield from _words(flag, value)


def _of_one_query(options: RunOptions) -> frozenset[str]:
    """Return the names of the options that `resume` does not take: they concern one query, not the job."""
    takers = {name: option.commands for name, (_, option, _) in described(type(options)).items()}
    return frozenset(name for name, commands in takers.items() if commands is not None and _RESUME not in commands)


def _long(flags: Sequence[str]) -> str:
    return next(flag for flag in flags if flag.startswith("--"))


def _words(flag: str, value: Any) -> Iterator[str]:
    if value is True:
        yield flag
        return
    for each in value if isinstance(value, tuple) else (value,):
        yield from (flag, f"{each:g}" if isinstance(each, float) else str(each))
