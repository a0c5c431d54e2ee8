"""The values of a job's options that are more than text: each is checked and parsed here."""

import re
from collections.abc import Mapping
from typing import NoReturn

from orchestrator.config import Config, parse_reasoning_budget
from orchestrator.config.domains import parse_pattern
from orchestrator.config.environment import is_variable_name
from orchestrator.errors import ConfigError
from orchestrator.plan.job_options import JobOptions
from orchestrator.sandbox.api import LinkKind, User
from orchestrator.sandbox.naming import is_image_name
from orchestrator.wire.protected_variables import is_protected
from orchestrator.wire.run import EventDetail
from orchestrator.workspace.placement import WorkspaceMode

_MOST_PREWARMED = 64
_USER = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?", re.ASCII)
_VOLUME = "volume:"
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}", re.ASCII)
_OF_CONFIG = ("model", "max_steps", "max_retries", "timeout_ms")
"""Options that perstack.toml has too, under the same names."""


def check_values(options: JobOptions) -> None:
    """Check the options alone, before anything is read.

    Raises:
        ConfigError: an option is invalid; the message names it and what it accepts.
    """
    parse_events(options.events)
    for name in options.env:
        if not is_variable_name(name):
            refuse("--env", name, "give the NAME of a variable; its value comes from the environment")
        if is_protected(name):
            refuse("--env", name, "it decides which code runs, so Experts never get it; leave it out")
    parse_user(options.run_as)
    parse_allowed(options.allow_domain)
    parse_prewarm(options.prewarm)
    parse_workspace_mode(options.workspace_mode)
    check_image(options.image)
    if options.link not in set(LinkKind):
        refuse("--link", options.link, f"use one of {', '.join(LinkKind)}")
    if options.reasoning_budget is not None:
        parse_reasoning_budget(options.reasoning_budget)


def override(config: Config, options: JobOptions) -> Config:
    """Return the config with the options that perstack.toml has too; options take precedence.

    Raises:
        ConfigError: the reasoning budget is invalid.
    """
    budget = options.reasoning_budget
    return config.overridden(
        provider_name=options.provider,
        reasoning_budget=None if budget is None else parse_reasoning_budget(budget),
        **{name: getattr(options, name) for name in _OF_CONFIG},
    )


def parse_events(text: str) -> EventDetail:
    """Parse `--events`.

    Raises:
        ConfigError: the text is no level of detail.
    """
    if text not in set(EventDetail):
        refuse("--events", text, f"use one of {', '.join(EventDetail)}")
    return EventDetail(text)


def parse_user(text: str | None) -> User | None:
    """Parse UID or UID:GID.

    Raises:
        ConfigError: the text is neither, or names root.
    """
    if text is None:
        return None
    match = _USER.fullmatch(text)
    if match is None:
        refuse("--run-as", text, "give a numeric UID or UID:GID")
    uid, gid = match.groups()
    if int(uid) == 0:
        refuse("--run-as", text, "Experts never run as root; name another user")
    return User(int(uid), int(gid if gid is not None else uid))


def parse_prewarm(text: str) -> int | None:
    """Parse `--prewarm`: how many Sandboxes are kept warm, None to decide by need.

    Raises:
        ConfigError: the text is not `auto`, `off` or a number in range.
    """
    if text == "auto":
        return None
    if text == "off":
        return 0
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST_PREWARMED):
        refuse("--prewarm", text, f"use auto, off, or a number up to {_MOST_PREWARMED}")
    return int(text)


def parse_workspace_mode(text: str) -> WorkspaceMode:
    """Parse `--workspace-mode`.

    Raises:
        ConfigError: the text is no mode.
    """
    if text not in set(WorkspaceMode):
        refuse("--workspace-mode", text, f"use one of {', '.join(WorkspaceMode)}")
    return WorkspaceMode(text)


def parse_volume(text: str) -> str | None:
    """Return NAME of `volume:NAME`; None if the text names a directory.

    Raises:
        ConfigError: no engine accepts the name.
    """
    if not text.startswith(_VOLUME):
        return None
    name = text.removeprefix(_VOLUME)
    if _VOLUME_NAME.fullmatch(name) is None:
        refuse("--workspace", text, "a volume's name has 2 to 255 letters, digits, dots, hyphens and underscores")
    return name


def parse_allowed(texts: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Parse SKILL=HOST values: the hosts by skill.

    Raises:
        ConfigError: a value has another shape, or its host is invalid.
    """
    allowed: dict[str, tuple[str, ...]] = {}
    for text in texts:
        skill, equals, pattern = text.partition("=")
        if not (skill and equals):
            refuse("--allow-domain", text, "give SKILL=HOST")
        try:
            allowed[skill] = (*allowed.get(skill, ()), parse_pattern(pattern))
        except ValueError as error:
            message = f"--allow-domain {text!r} is not usable: {error}"
            raise ConfigError(message) from error
    return allowed


def check_image(image: str | None) -> None:
    """Check the name of an image.

    Raises:
        ConfigError: no engine accepts it.
    """
    if image is not None and not is_image_name(image):
        message = f"image {image!r} is not usable: give NAME, NAME:TAG or NAME@DIGEST"
        raise ConfigError(message)


def refuse(option: str, value: str, remedy: str) -> NoReturn:
    """Raise the error of an option that has an invalid value.

    Raises:
        ConfigError: always.
    """
    message = f"{option} {value!r} is not usable: {remedy}"
    raise ConfigError(message)
