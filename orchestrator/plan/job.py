"""A Job: one run with all defaults filled in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config import Config
from orchestrator.config.package_command import Fetch, fetch_of
from orchestrator.config.registries import Registries
from orchestrator.plan.job_options import NO_OPTIONS, JobOptions
from orchestrator.providers.prices import Price
from orchestrator.sandbox.api import DEFAULT_LIMITS, STATE_ROOT
from orchestrator.sandbox.authority import EgressLimits
from orchestrator.wire.expert import Expert
from orchestrator.wire.grant_record import ResourceLimits
from orchestrator.wire.package import Program
from orchestrator.wire.run import EventDetail
from orchestrator.wire.skill import StdioSkill
from orchestrator.workspace.workspace import Workspace

MAX_ATTEMPTS = 3
"""A Run whose Sandbox was lost starts again at most twice."""


WAIT_SECONDS = 60 * 60.0
"""How long after its launch a Sandbox may still get a Run: its deadline is set before it has one."""


@dataclass(frozen=True, slots=True)
class InstalledPackages:
    """Installed packages and the programs of skills in them.

    They are in one directory, or each in a volume of the engine: `volumes` has their names by slug. Without any needed
    package there is neither.
    """

    directory: Path | None = None
    programs: Mapping[Fetch, Program] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)

    def program(self, skill: StdioSkill) -> Program | None:
        """Return the installed program of `skill`; None if it is started by its own command."""
        fetch = fetch_of(skill)
        return None if fetch is None else self.programs.get(fetch)


@dataclass(frozen=True, slots=True)
class Job:
    """One `perstack-orch run`, with all defaults filled in.

    `options` are those that the job was made with; the other fields have what they lead to together with the Config
    and the defaults. `env` has the values of all variables that may be granted, `secrets` are the values that no record
    may show. `host_env` is granted to no Expert: the provider's key and other variables of the orchestrator's owner;
    None if `env` serves for both. `allowed` are the hosts of `--allow-domain` by skill; if the job asks the user about
    others (`asks`), every skill has a proxy. `limits` apply to each Sandbox, `egress` to each skill in a Run.
    `timeout_ms` is for one generation. `slots` is how many Sandboxes may work at once, `prewarm` how many more are kept
    warm, None to decide by what the Experts may need. A Sandbox gets no Run later than `wait_seconds` after its launch.
    Packages of skills are fetched from `registries`, for the backend `platform`; `installed` lists the installed ones.
    `price` is the model's, if known. `state_root` is above the state directories, `packages_root` is where
    packages are installed; None means in the store. `shipped_packages` has all packages of skills already, as in an
    image of `perstack-orch build`. Orchestrators with the same `locks_root` take turns at the files of
    one workspace; with None they do not.
    """

    id: str
    instance: str
    config: Config
    expert_key: str
    query: str
    workspace: Workspace
    image: str
    provider_name: str
    model: str
    reasoning_budget: str | int
    max_steps: int
    max_retries: int
    timeout_ms: int
    context_window: int | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    host_env: Mapping[str, str] | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    options: JobOptions = NO_OPTIONS
    allowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asks: bool = False
    limits: ResourceLimits = DEFAULT_LIMITS
    egress: EgressLimits = EgressLimits()
    slots: int = 8
    prewarm: int | None = None
    events: EventDetail = EventDetail.DEFAULT
    wait_seconds: float = WAIT_SECONDS
    registries: Registries = field(default_factory=Registries)
    platform: str = "docker"
    installed: InstalledPackages = field(default_factory=InstalledPackages)
    price: Price | None = None
    state_root: Path = STATE_ROOT
    locks_root: Path | None = None
    packages_root: Path | None = None
    shipped_packages: Path | None = None

    @property
    def expert(self) -> Expert:
        """The coordinator Expert.

        Raises:
            ConfigError: perstack.toml does not declare it.
        """
        return self.config.expert(self.expert_key)


def reachable(job: Job) -> tuple[Expert, ...]:
    """List the Experts that the job could run: the coordinator Expert and all direct and indirect delegates."""
    found = {job.expert.key: job.expert}
    waiting = [job.expert]
    while waiting:
        for key in waiting.pop().delegates:
            if key not in found:
                found[key] = job.config.expert(key)
                waiting.append(found[key])
    return tuple(found.values())
