"""`perstack-orch install`, as it is typed; its body is imported when it runs."""

import os

from orchestrator.cli import arguments
from orchestrator.cli.options import RunOptions


def install(  # noqa: PLR0913 - typer reads the options from the signature
    *,
    config: arguments.Config = None,
    strict: arguments.Strict = False,
    storage: arguments.Storage = "perstack",
    backend: arguments.Backend = "docker",
    env_path: arguments.EnvPath = None,
    allow_domain: arguments.AllowDomain = None,
    image: arguments.Image = None,
    run_as: arguments.RunAs = None,
) -> int:
    """Install the packages of all skills ahead of any Run, and write perstack.lock with their tools."""
    from orchestrator.cli.locking import install as work  # noqa: PLC0415 - it imports everything

    options = RunOptions(
        expert_key="",
        query=None,
        config=config,
        strict=strict,
        storage=storage,
        backend=backend,
        env_path=tuple(env_path or ()),
        allow_domain=tuple(allow_domain or ()),
        image=image,
        run_as=run_as,
    )
    return work(options, os.environ)
