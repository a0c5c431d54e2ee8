"""`perstack-orch install`, as it is typed; its body is imported when it runs."""

import os

from orchestrator.cli.options import CLUSTER, RunOptions, with_options

_TAKEN = {
    *("config", "strict", "user", "storage", "backend", "env_path", "allow_domain", "image", "runtime_class", "run_as"),
    *CLUSTER,
}


@with_options(RunOptions, _TAKEN.__contains__)
def install(options: RunOptions) -> int:
    """Install the packages of all skills ahead of any Run, and write perstack.lock with their tools."""
    from orchestrator.cli.locking import install as work  # noqa: PLC0415 - it imports everything

    return work(options, os.environ)
