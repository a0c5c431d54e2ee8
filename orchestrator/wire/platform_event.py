"""Events about the platform around the Expert (spec 3.4)."""

from typing import Any, Literal

from orchestrator.wire.any_event import RuntimeEvent


class InitializeRuntime(RuntimeEvent):
    """A segment's Sandbox took its Run. `expert_name` names the Expert, `experts` all known keys."""

    runtime_version: str
    runtime: str | None = None
    expert_name: str
    experts: tuple[str, ...]
    model: str
    max_steps: int | None = None
    max_retries: int
    timeout: int
    query: str | None = None
    interactive_tool_call: dict[str, Any] | None = None


class SkillStarting(RuntimeEvent):
    """A stdio skill is about to be started."""

    skill_name: str
    command: str
    args: tuple[str, ...]


class SkillStderr(RuntimeEvent):
    """A stdio skill wrote to its stderr."""

    skill_name: str
    message: str


class SkillConnected(RuntimeEvent):
    """A skill's tools are known; durations are milliseconds."""

    skill_name: str
    server_info: dict[str, str] | None = None
    spawn_duration_ms: float | None = None
    handshake_duration_ms: float | None = None
    tool_discovery_duration_ms: float | None = None
    connect_duration_ms: float | None = None
    total_duration_ms: float | None = None


class SkillDisconnected(RuntimeEvent):
    """A skill is closed."""

    skill_name: str


class DockerBuildProgress(RuntimeEvent):
    """An image is being built."""

    stage: Literal["pulling", "building", "complete", "error"]
    service: str
    message: str
    progress: float | None = None


class DockerContainerStatus(RuntimeEvent):
    """A Sandbox changed state; only with `--verbose`."""

    status: Literal["starting", "running", "healthy", "unhealthy", "stopped", "error"]
    service: str
    message: str | None = None


class ProxyAccess(RuntimeEvent):
    """A skill asked for a host. `reason` says why not, and what would allow it."""

    action: Literal["allowed", "blocked"]
    skill_name: str | None = None
    domain: str
    port: int
    reason: str | None = None
