"""Load a Config from a file or URL."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.config.config import DEFAULT_PROVIDER, Config
from orchestrator.config.document import Document, validate
from orchestrator.config.expert_table import ExpertTable
from orchestrator.config.file import parse, read
from orchestrator.config.lock_file import LOCK_NAME, SkillTools, known_tools
from orchestrator.config.problems import Problem, dotted
from orchestrator.config.provider_table import ChosenProvider
from orchestrator.config.skill_table import StdioTable
from orchestrator.config.tool_names import uncallable
from orchestrator.config.trusted_files import why_untrusted
from orchestrator.errors import ConfigError
from orchestrator.wire.expert import Expert
from orchestrator.wire.protected_variables import is_protected

_UNUSED = {
    "provider_tools": "providerTools",
    "provider_skills": "providerSkills",
    "provider_tool_options": "providerToolOptions",
}


def load(source: str | Path, *, strict: bool = False, with_lock: bool = True) -> Config:
    """Read a perstack.toml: a path, relative to the current directory, or a URL on raw.githubusercontent.com.

    Unknown keys become notes. If other problems exist, the error lists them too; if `strict`, they are problems
    themselves. `with_lock` also reads the lock file next to it; otherwise the caller uses `locked` later, once the
    owner is known.

    Raises:
        ConfigError: it cannot be read, is not TOML, or is not valid; the message lists every problem with its path.
    """
    if isinstance(source, str):
        # Importing urllib.request takes longer than loading a config.
        from orchestrator.config import remote  # noqa: PLC0415

        if remote.is_url(source):
            remote.check_url(source)
            return _config(remote.download(source), Config(path=None, directory=Path.cwd()), source, strict=strict)
    path = Path(source).absolute()
    config = _config(read(path), Config(path=path, directory=path.parent), str(path), strict=strict)
    return locked(config) if with_lock else config


def locked(config: Config) -> Config:
    """Return the config with the tools in the lock file next to it, and notes about unusable parts of that file.

    A lock file that is not the caller's own is ignored with a note: see `why_untrusted`.
    """
    tools, notes = _known_tools(config.directory / LOCK_NAME, config.experts)
    return (
        replace(config, known_tools=MappingProxyType(tools), notes=(*config.notes, *notes))
        if tools or notes
        else config
    )


def _known_tools(lock: Path, experts: Mapping[str, Expert]) -> tuple[dict[str, SkillTools], tuple[str, ...]]:
    """Read the lock file. It is never named by the user, so it is treated as a found file."""
    try:
        reason = why_untrusted(lock)
    except FileNotFoundError:
        return {}, ()
    if reason is not None:
        return {}, (f"{lock} {reason}, so it is ignored; keep it and perstack.toml where no Expert can write",)
    return known_tools(lock, experts)


def _config(content: bytes, blank: Config, name: str, *, strict: bool) -> Config:
    raw = parse(content, name)
    checked = validate(raw)
    document, unknown = checked.document, checked.unknown
    if document is None or (strict and unknown):
        # List unknown keys as well: a missing key is often present, but misspelt.
        raise ConfigError(_listed(name, checked.problems + unknown))
    settled = _settled(document, checked.provider)
    shadowed = map(str, uncallable(settled["experts"].values()))
    notes = (*(f"{problem}; ignored" for problem in unknown), *_notes(document), *shadowed)
    return replace(blank, notes=notes, **settled)


def _settled(document: Document, provider: ChosenProvider | None) -> dict[str, Any]:
    return {
        "provider_name": provider.name if provider else DEFAULT_PROVIDER,
        "provider_setting": MappingProxyType(provider.setting if provider else {}),
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
            'runtime: "local" does not lower isolation here: every Expert still runs in a container; '
            "only --backend process runs without one"
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
