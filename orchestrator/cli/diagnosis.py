"""The checks of `doctor`, run for what the options describe and printed as text or JSON."""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.backends import is_cluster
from orchestrator.cli.build_job import (
    check_options,
    load_config,
    load_environment,
    load_environment_with_key,
)
from orchestrator.cli.cluster_options import is_submitted
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.notices import Notices, write_warning
from orchestrator.cli.output.render import plain
from orchestrator.cli.user_dirs import resolve_user_dirs
from orchestrator.config import Config, find
from orchestrator.doctor.checks import Subject, run_checks
from orchestrator.doctor.cluster import ClusterPlace, is_named
from orchestrator.doctor.finding import Diagnosis, Level
from orchestrator.errors import ConfigError
from orchestrator.plan.option_values import override, parse_volume

_PROBLEM = 1
_LEVEL = max(len(level) for level in Level)
_STEP = "  "


def show_diagnosis(options: RunOptions, environ: Mapping[str, str], *, asks_model: bool, as_json: bool) -> int:
    """Print what each check found; return the exit code: 1 if no job could run.

    Raises:
        OrchestratorError: an option or perstack.toml is invalid.
    """
    check_options(options)
    submitted = is_submitted(options)
    if not submitted:
        options = resolve_user_dirs(options)
    cwd = Path.cwd()
    config = _load_config(options, cwd)
    load_env = load_environment if submitted else load_environment_with_key
    env = load_env(options, config, environ, cwd)
    for note in (*config.notes, *env.notes):
        write_warning(note)
    volume = None if options.workspace is None else parse_volume(options.workspace)
    subject = Subject(
        backend=options.backend,
        options=options,
        config=config,
        env=env,
        environ=environ,
        workspace=None if options.workspace is None or volume is not None else cwd / options.workspace,
        volume=volume,
        store=cwd / options.storage,
        cluster=_cluster_place(options, environ, required=is_cluster(options.backend)),
        calls_model=not submitted,
        asks_model=asks_model,
    )
    with show_log(Notices()):
        diagnosis = asyncio.run(run_checks(subject))
    text = diagnosis.to_json().decode() if as_json else "\n".join(map(plain, diagnosis_lines(diagnosis)))
    sys.stdout.write(f"{text}\n")
    return 0 if diagnosis.can_run else _PROBLEM


def diagnosis_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Return one line per finding below its area, each remedy below its finding, and the result at the end."""
    area, width = None, max((len(each.check) for each in diagnosis.findings), default=0)
    for each in diagnosis.findings:
        if each.area != area:
            area = each.area
            yield area.value
        yield f"{_STEP}{each.level.ljust(_LEVEL)}  {each.check.ljust(width)}  {each.found}"
        if each.remedy is not None:
            yield f"{_STEP}{' ' * _LEVEL}  {' ' * width}  -> {each.remedy}"
    problems = sum(each.level is Level.PROBLEM for each in diagnosis.findings)
    yield "a job could run here" if diagnosis.can_run else f"no job could run here: problems found: {problems}"


def _load_config(options: RunOptions, cwd: Path) -> Config:
    """Read perstack.toml, if one is named or found: a machine can be checked without one."""
    if options.config is None:
        try:
            find(cwd)
        except ConfigError:
            return override(Config(path=None, directory=cwd), options)
    return load_config(options, cwd)


def _cluster_place(options: RunOptions, environ: Mapping[str, str], *, required: bool) -> ClusterPlace | None:
    if not required and not is_named(environ):
        return None
    return ClusterPlace(options.namespace, options.installation, required=required)
