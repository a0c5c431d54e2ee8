"""The work of `build`: an image that contains one Expert, made from perstack.toml and this package's own files."""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.backends import open_backend
from orchestrator.backends.docker.client import DockerClient
from orchestrator.backends.docker.endpoint import find_endpoint
from orchestrator.backends.docker.image_builder import ImageBuild, build_image
from orchestrator.backends.docker.image_provision import base_of, labels_of, log_progress
from orchestrator.cli.build_job import build_job, load_config, load_environment, read_content, without_model
from orchestrator.cli.git_revision import revision_of
from orchestrator.cli.options import ExpertImageOptions, RunOptions
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.notices import Notices, write_message, write_warning
from orchestrator.cli.output.render import plain
from orchestrator.cli.signals import stop_on_signals
from orchestrator.config import Config
from orchestrator.config.lock_file import LOCK_NAME
from orchestrator.disk.directory import make_below
from orchestrator.errors import ConfigError
from orchestrator.images.expert_image import ShippedExpert, build_arguments, expert_context, starts_skills
from orchestrator.images.labels import BASE_LABEL, VERSION_LABEL
from orchestrator.images.settings import BASE_VARIABLE
from orchestrator.packages.package_volumes import volume_archives
from orchestrator.packages.shipped import pack
from orchestrator.packages.skill_packages import install_packages
from orchestrator.plan.job import InstalledPackages, Job, reachable
from orchestrator.plan.make_job import instance_of, state_root_of
from orchestrator.pool.state_directories import job_directory
from orchestrator.providers import PROVIDERS, require_known
from orchestrator.version import VERSION
from orchestrator.wire.expert import Expert
from orchestrator.workspace.workspace import NOBODY

_CONFIG = "perstack.toml"
_SECRET_CHARACTERS = 8
"""A shorter value of a variable occurs in a file by chance."""


@dataclass(frozen=True, slots=True)
class _Project:
    """What goes into an image of an Expert: its job, and the files next to perstack.toml by name."""

    job: Job
    experts: tuple[Expert, ...]
    files: Mapping[str, bytes]


def build_expert_image(expert_key: str, options: ExpertImageOptions, environ: Mapping[str, str]) -> int:
    """Build the image, and print its name; return the exit code.

    Raises:
        ConfigError: an option or perstack.toml is invalid, or the lock is missing or stale.
        OrchestratorError: the image or a package could not be made.
    """
    if not options.tag:
        message = "the image has no name; name it with -t IMAGE"
        raise ConfigError(message)
    cwd = Path.cwd()
    run = without_model(RunOptions(config=options.config, storage=options.storage, expert_key=expert_key))
    config = load_config(RunOptions(config=options.config, storage=options.storage), cwd)
    if config.path is None:
        message = f"{options.config} is not a file here, and build needs one; download it, and name the file"
        raise ConfigError(message)
    config.expert(expert_key)
    _require_built_in(config.provider_name)
    env = load_environment(run, config, environ, cwd)
    with (
        show_log(Notices()),
        job_directory(instance_of(cwd / run.storage), f"build/{os.getpid()}", root=state_root_of(None)) as above,
    ):
        make_below(above, "workspace", (NOBODY.uid, NOBODY.gid), 0o700)
        job = build_job(run.with_(workspace=str(above / "workspace")), config, env.values, cwd)
        project = _Project(job, reachable(job), _read_files(config))
        _require_lock(config, project.experts)
        _refuse_secrets(config, project)
        for note in config.notes:
            write_warning(note)
        return asyncio.run(_build(config, project, options, environ))


async def _build(config: Config, project: _Project, options: ExpertImageOptions, environ: Mapping[str, str]) -> int:
    with stop_on_signals(write_message) as stop:
        try:
            async with aclosing(DockerClient(find_endpoint(environ), environ)) as engine:
                await _build_at_engine(engine, config, project, options, environ)
        except asyncio.CancelledError:
            if stop.signal_number is None:
                raise
            return stop.exit_code
    sys.stdout.write(f"{plain(str(options.tag))}\n")
    return 0


async def _build_at_engine(
    engine: DockerClient, config: Config, project: _Project, options: ExpertImageOptions, environ: Mapping[str, str]
) -> None:
    name = str(options.tag)
    environ = environ if options.base is None else {**environ, BASE_VARIABLE: options.base}
    installed, packages = await _install(project, Path.cwd() / options.storage, environ)
    base = await _base(engine, project.job.image, options.base, environ, has_packages=bool(installed.programs))
    shipped = ShippedExpert(
        project.job.expert_key,
        project.experts,
        project.files,
        packages,
        any(program.runs_on_node for program in installed.programs.values()),
    )
    labels, arguments = _labels(config, project, base), build_arguments(shipped)
    build = ImageBuild(expert_context(shipped), (name,), base, labels, arguments)
    async with log_progress(name) as steps:
        await build_image(engine, build, environ, steps.append)


async def _install(
    project: _Project, store: Path, environ: Mapping[str, str]
) -> tuple[InstalledPackages, bytes | None]:
    """Install the packages of the Experts' skills in a Sandbox, which has the interpreter that the image will have.

    Return them, and an archive of them.
    """
    job = project.job
    if not any(map(starts_skills, project.experts)):
        return job.installed, None
    async with open_backend("docker", environ, image=job.image) as backend:
        await backend.check()
        job = await install_packages(job, backend, store)
        async with volume_archives(job, backend) as archives:
            return job.installed, await asyncio.to_thread(pack, job.installed, archives)


async def _base(
    engine: DockerClient, runtime: str, named: str | None, environ: Mapping[str, str], *, has_packages: bool
) -> str:
    """Return the base of the image: with packages, that on which they were installed.

    Raises:
        ConfigError: --base names another.
    """
    if not has_packages:
        return base_of(environ)
    found = (await labels_of(engine, runtime) or {}).get(BASE_LABEL) or base_of(environ)
    if named not in {None, found}:
        message = (
            f"--base {named} cannot have the packages of skills, which were installed on {found}; leave --base out, or"
            f" run `perstack-orch image build --base {named}` first"
        )
        raise ConfigError(message)
    return found


def _read_files(config: Config) -> dict[str, bytes]:
    """Return the files that a run of the Expert reads, by their names next to perstack.toml.

    Raises:
        ConfigError: one cannot be read.
    """
    files = {_CONFIG: read_content(config.path or config.directory / _CONFIG)}
    if (config.directory / LOCK_NAME).is_file() and config.known_tools:
        files[LOCK_NAME] = read_content(config.directory / LOCK_NAME)
    for key, default in PROVIDERS.get(config.provider_name).files.items():
        name = str(config.provider_setting.get(key, default))  # of a file next to perstack.toml: the setting is checked
        files[name] = read_content(config.directory / name)
    return files


def _require_built_in(provider: str) -> None:
    """Check that the image can have the provider.

    Raises:
        ConfigError: no such provider exists, or it is from another package.
    """
    require_known(provider)
    if provider not in PROVIDERS.builtin:
        message = (
            f"provider {provider!r} is from another package, which the image cannot have; name one of"
            f" {', '.join(PROVIDERS.builtin)} in perstack.toml"
        )
        raise ConfigError(message)


def _require_lock(config: Config, experts: tuple[Expert, ...]) -> None:
    """Check that the lock has the skills of all Experts as perstack.toml has them; without skills none is needed.

    Raises:
        ConfigError: it is missing or stale.
    """
    missing = [expert.key for expert in experts if starts_skills(expert) and expert.key not in config.known_tools]
    if not missing:
        return
    lock = config.directory / LOCK_NAME
    what = "was written for another definition of" if lock.is_file() else "does not exist, and has the tools of"
    message = f"{lock} {what} Expert {missing[0]!r}; run `perstack-orch install`, then build the image"
    raise ConfigError(message)


def _refuse_secrets(config: Config, project: _Project) -> None:
    """Check that no file has the value of a secret variable: every user of the image can read it.

    Raises:
        ConfigError: one has.
    """
    headers = config.provider_setting.get("headers")
    chosen = set(map(str, headers.values())) if isinstance(headers, Mapping) else set()
    for value in set(project.job.secrets) - chosen:
        if len(value) < _SECRET_CHARACTERS:
            continue
        for name, content in project.files.items():
            if value.encode() in content:
                message = (
                    f"{config.directory / name} has the value of a secret variable, which every user of the image could"
                    " read; remove it, and pass the variable to the container"
                )
                raise ConfigError(message)


def _labels(config: Config, project: _Project, base: str) -> Mapping[str, str]:
    """Return labels with the names of the Open Containers Initiative.

    See https://github.com/opencontainers/image-spec/blob/main/annotations.md.
    """
    expert = project.job.expert
    revision = revision_of(config.directory, project.files)
    known = {
        "org.opencontainers.image.title": expert.name,
        "org.opencontainers.image.description": expert.description,
        VERSION_LABEL: expert.version,
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.created": datetime.now(UTC).isoformat(timespec="seconds"),
        BASE_LABEL: base,
        "perstack.ai/orchestrator": VERSION,
    }
    return {name: value for name, value in known.items() if value is not None}
