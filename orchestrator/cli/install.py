"""`perstack-orch install`: install the packages of all skills, and write their tools to perstack.lock."""

import os

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def install(options: RunOptions) -> int:
    """Install the packages of all skills before the first Run, and write perstack.lock with their tools."""
    from orchestrator.cli.installer import install_skills  # noqa: PLC0415 - help does not need it

    return install_skills(options, os.environ)
