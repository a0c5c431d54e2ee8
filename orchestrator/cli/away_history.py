"""`log` and `record` of jobs that a cluster worked: the same commands, beside the records."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

from orchestrator.backends.http import BrokenError, RefusalError
from orchestrator.cli.again import typed
from orchestrator.cli.history import LogOptions
from orchestrator.cli.place import opened_place
from orchestrator.cli.render import plain
from orchestrator.coordination.messages import Ended, Follow
from orchestrator.coordination.reading import read
from orchestrator.errors import BackendUnavailableError, ConfigError

_HERE = {"user", "storage", "prices", "backend", "namespace", "installation"}
_RECORDS = "records"
_START_SECONDS = 300.0


def show_away(options: LogOptions, environ: Mapping[str, str]) -> int:
    """Write what `log` writes in the cluster; give its exit code.

    Raises:
        OrchestratorError: the records cannot be read there.
    """
    return _away(options, ("log", *typed(options, _HERE)), sys.stdout.buffer, environ)


def record_away(options: LogOptions, job_id: str, output: str | None, environ: Mapping[str, str]) -> int:
    """Write what `record` writes in the cluster, to the file `output` or to stdout; give its exit code.

    Raises:
        OrchestratorError: the records cannot be read there, or the file not be written.
    """
    if output is None:
        return _away(options, ("record", job_id), sys.stdout.buffer, environ)
    try:
        with Path(output).open("wb") as file:
            return _away(options, ("record", job_id), file, environ)
    except OSError as error:
        message = f"the script cannot be written to {output}: {error.strerror}; name another --output"
        raise ConfigError(message) from error


def _away(options: LogOptions, command: tuple[str, ...], output: BinaryIO, environ: Mapping[str, str]) -> int:
    if options.backend != "kubernetes":
        message = f"--backend {options.backend!r} is not usable: elsewhere jobs are in the store, which --storage names"
        raise ConfigError(message)
    ended = asyncio.run(_written(options, command, output, environ))
    if ended.error is not None:
        sys.stderr.write(f"perstack-orch: {plain(ended.error, keep=chr(10))}\n")
    return ended.code


async def _written(
    options: LogOptions, command: tuple[str, ...], output: BinaryIO, environ: Mapping[str, str]
) -> Ended:
    async with opened_place(options, options.user, environ) as place:
        await place.check()
        follow = Follow(command=command)
        try:
            async with aclosing(read(place, _RECORDS, lambda: follow, _START_SECONDS)) as reading:
                async for told in reading:
                    if isinstance(told, bytes):
                        output.write(told + b"\n")
                    elif isinstance(told, Ended):
                        output.flush()
                        return told
        except (BrokenError, RefusalError, TimeoutError) as error:
            message = f"the records could not be read to their end ({error}): ask again"
            raise BackendUnavailableError(message) from error
    raise AssertionError
