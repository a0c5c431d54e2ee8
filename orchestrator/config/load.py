"""From a file or URL to a Config."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.config.config import DEFAULT_PROVIDER, Config
from orchestrator.config.document import Document, validate
from orchestrator.config.expert_table import ExpertTable
from orchestrator.config.file import parse, read
from orchestrator.config.found import why_not
from orchestrator.config.lock import LOCK_NAME, SkillTools, known_tools
from orchestrator.config.problems import Problem, dotted
from orchestrator.config.skill_table import StdioTable
from orchestrator.config.tool_names import uncallable
from orchestrator.errors import ConfigError
from orchestrator.wire.expert import Expert
from orchestrator.wire.protected import is_protected

_UNUSED = {
    "provider_tools": "providerTools",
    "provider_skills": "providerSkills",
    "provider_tool_options": "providerToolOptions",
}


def load(source: str | Path, *, strict: bool = False, with_lock: bool = True) -> Config:
    """Read a perstack.toml: a path, relative to the current directory, or a URL on raw.githubusercontent.com.

    Unknown keys become notes; they are listed with the problems if there are any, and are problems if `strict`.
    `with_lock` reads the lock beside it too; without, `locked` does, once it is known whose it is.

    Raises:
        ConfigError: it cannot be had, is not TOML, or is not valid; then every problem is listed with its path.
    """
    if isinstance(source, str):
        # urllib.request takes longer to import than a config takes to load.
        from orchestrator.config import remote  # noqa: PLC0415

        if remote.is_url(source):
            remote.check_url(source)
            return _config(remote.download(source), Config(path=None, directory=Path.cwd()), source, strict=strict)
    path = Path(source).absolute()
    config = _config(read(path), Config(path=path, directory=path.parent), str(path), strict=strict)
    return locked(config) if with_lock else config


def locked(config: Config) -> Config:
    """Give the config with what the lock beside it knows, and notes on what of that cannot be used.

    A lock that does not count as the caller's own is ignored with a note: see `found`.
    """
    tools, notes = _known_tools(config.directory / LOCK_NAME, config.experts)
    return (
        replace(config, known_tools=MappingProxyType(tools), notes=(*config.notes, *notes))
        if tools or notes
        else config
    )


def _known_tools(lock: Path, experts: Mapping[str, Expert]) -> tuple[dict[str, SkillTools], tuple[str, ...]]:
    """Read the lock, which nobody names: it counts as one that was found."""
    try:
        reason = why_not(lock)
    except FileNotFoundError:
        return {}, ()
    if reason is not None:
        return {}, (f"{lock} {reason}, so it is ignored; keep it and perstack.toml where no Expert writes",)
    return known_tools(lock, experts)


def _config(content: bytes, blank: Config, name: str, *, strict: bool) -> Config:
    raw = parse(content, name)
    document, problems, unknown = validate(raw)
    if document is None or (strict and unknown):
        # Also where they alone would be notes: a key that is missing is often there, misspelt.
        raise ConfigError(_listed(name, problems + unknown))
    settled = _settled(document)
    shadowed = map(str, uncallable(settled["experts"].values()))
    notes = (*(f"{problem}; ignored" for problem in unknown), *_notes(document), *shadowed)
    return replace(blank, notes=notes, **settled)


def _settled(document: Document) -> dict[str, Any]:
    provider = document.provider
    setting = provider.setting.model_dump(by_alias=True, exclude_unset=True) if provider else {}
    return {
        "provider_name": provider.provider_name if provider else DEFAULT_PROVIDER,
        "provider_setting": MappingProxyType(setting),
        "model": document.model,
        "reasoning_budget": document.reasoning_budget,
        "max_steps": document.max_steps,
        "max_retries": document.max_retries,
        "timeout_ms": document.timeout,
        "env_path": tuple(document.env_path),
        "experts": MappingProxyType({key: table.expert(key) for key, table in document.experts.items()}),
        "base_skill_command": tuple(document.perstack_base_skill_command or ()) or None,
    }


def _listed(name: str, problems: Iterable[Problem]) -> str:
    return "\n".join([f"{name}: Validation failed:", *(f"  - {problem}" for problem in problems)])


def _notes(document: Document) -> Iterator[str]:
    if document.runtime == "local":
        yield (
            'runtime: "local" does not lower isolation here, every Expert runs in a container all the same; '
            "only --backend process runs without"
        )
    for key, table in document.experts.items():
        yield from _expert_notes(key, table)


def _expert_notes(key: str, table: ExpertTable) -> Iterator[str]:
    for field, name in _UNUSED.items():
        if getattr(table, field) is not None:
            yield f"{dotted(('experts', key, name))}: accepted, but not used"
    for skill_name, skill in table.skills.items():
        for index, variable in enumerate(skill.required_env if isinstance(skill, StdioTable) else ()):
            if is_protected(variable):
                path = dotted(("experts", key, "skills", skill_name, "requiredEnv", index))
                yield f"{path}: {variable} is protected and never passed on; ignored"
