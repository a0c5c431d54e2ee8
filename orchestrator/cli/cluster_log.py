"""`log` and `record` of jobs that ran in a cluster: a Pod next to the records runs the same commands."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

from orchestrator.backends import is_cluster
from orchestrator.backends.cluster_settings import START_SECONDS
from orchestrator.cli.cluster_client import open_cluster_client
from orchestrator.cli.command_line import format_options
from orchestrator.cli.options import LogOptions, RecordsOptions
from orchestrator.cli.output.notices import write_message
from orchestrator.cluster.protocol import JobEnded, Subscribe
from orchestrator.cluster.reader import read_records
from orchestrator.errors import BackendUnavailableError, ConfigError
from orchestrator.http.errors import ConnectionBrokenError, StatusError

_LOCAL = {*RecordsOptions.__struct_fields__, "prices"}
"""Options that the command in the Pod does not get."""
_RECORDS = "records"


def log_in_cluster(options: LogOptions, environ: Mapping[str, str]) -> int:
    """Write what `log` prints in the cluster; return its exit code.

    Raises:
        OrchestratorError: the records cannot be read there.
    """
    return _run(options, ("log", *format_options(options, _LOCAL)), sys.stdout.buffer, environ)


def record_in_cluster(options: RecordsOptions, job_id: str, output: str | None, environ: Mapping[str, str]) -> int:
    """Write what `record` prints in the cluster to the file `output`, default stdout; return its exit code.

    Raises:
        OrchestratorError: the records cannot be read there, or the file cannot be written.
    """
    if output is None:
        return _run(options, ("record", job_id), sys.stdout.buffer, environ)
    try:
        with Path(output).open("wb") as file:
            return _run(options, ("record", job_id), file, environ)
    except OSError as error:
        message = f"the script cannot be written to {output}: {error.strerror}; name another --output"
        raise ConfigError(message) from error


def _run(options: RecordsOptions, command: tuple[str, ...], output: BinaryIO, environ: Mapping[str, str]) -> int:
    if not is_cluster(options.backend or ""):
        message = (
            f"--backend {options.backend!r} is not usable: jobs of other backends are in the local store;"
            " name it with --storage"
        )
        raise ConfigError(message)
    ended = asyncio.run(_copy(options, command, output, environ))
    if ended.error is not None:
        write_message(ended.error, keep="\n")
    return ended.code


async def _copy(
    options: RecordsOptions, command: tuple[str, ...], output: BinaryIO, environ: Mapping[str, str]
) -> JobEnded:
    async with open_cluster_client(options, environ) as client:
        await client.check()
        follow = Subscribe(command=command)
        try:
            async with aclosing(read_records(client, _RECORDS, lambda: follow, START_SECONDS)) as reading:
                async for message in reading:
                    if isinstance(message, bytes):
                        output.write(message + b"\n")
                    elif isinstance(message, JobEnded):
                        output.flush()
                        return message
        except (ConnectionBrokenError, StatusError, TimeoutError) as error:
            text = f"the records could not be read to their end ({error}): run the command again"
            raise BackendUnavailableError(text) from error
    raise AssertionError
