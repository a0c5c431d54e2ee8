"""The project of the demo: copied from the installed package, then run once and shown as a conversation."""

import os
import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from orchestrator.backends import is_cluster
from orchestrator.cli.conversation import converse
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.prompts import show
from orchestrator.cli.output.render import plain
from orchestrator.disk.whole_file import write_atomically
from orchestrator.errors import ConfigError
from orchestrator.plan.option_values import refuse

_FILES = ("perstack.toml", "replies.json")
_EXPERT, _QUERY = "guide", "Show me around."


def run_demo(options: RunOptions, directory: str, environ: Mapping[str, str]) -> int:
    """Make the project, run it, and print what to try next; return the exit code of the job.

    Raises:
        OrchestratorError: the project cannot be made, or the job could not be run.
    """
    if is_cluster(options.backend):
        refuse("--backend", options.backend, "the demo runs on this machine; leave it out")
    project = Path.cwd() / directory
    make_project(project)
    # The project's own workspace and records, as when a user works there.
    os.chdir(project)
    code = converse(options.with_(expert_key=_EXPERT, query=_QUERY), environ, once=True)
    if code == 0:
        where = plain(shlex.quote(directory))
        show(f"\nthe project is in {where}: perstack.toml declares both Experts, workspace/tour.md is what they wrote")
        show(f"try next, in {where}:")
        show("  perstack-orch explain guide                 what it may read, reach and use")
        show("  perstack-orch log --runs                    what each Run did")
        show(f'  perstack-orch run guide "{_QUERY}"   the same for a script: events on stdout')
    return code


def make_project(project: Path) -> None:
    """Write the demo's files into a directory, which may exist; files that are there stay as they are.

    Raises:
        ConfigError: the directory or a file cannot be made.
    """
    packaged = files("orchestrator").joinpath("demo")
    try:
        project.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if not (project / name).exists():
                write_atomically(project / name, packaged.joinpath(name).read_bytes(), mode=None)
    except OSError as error:
        message = f"the demo cannot be written to {project}: {error.strerror}; name another DIRECTORY"
        raise ConfigError(message) from error
