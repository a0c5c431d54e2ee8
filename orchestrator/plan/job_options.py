"""The options of a job, each described once: its name, type, default and help, and the commands that take it.

The command line (`cli.options`), the request of a job in a cluster (`cluster.job_request`), the commands that are
printed for the user to copy, and `make_job` all have the fields of `JobOptions`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from orchestrator.wire.frozen import Frozen

RUN_AND_START = frozenset({"run", "start"})
"""The commands that take a query."""
RUN_START_RESUME = RUN_AND_START | {"resume"}
"""The commands that work a job."""
JOBS_AND_EXPLAIN = RUN_START_RESUME | {"explain", "doctor"}
"""The commands that work a job, or look at one before it runs."""
JOBS_EXPLAIN_SHELL = JOBS_AND_EXPLAIN | {"shell"}
CONFIG_COMMANDS = JOBS_EXPLAIN_SHELL | {"install"}
"""The commands that use a perstack.toml."""
CONFIG_AND_COORDINATE = CONFIG_COMMANDS | {"coordinate"}
"""For options that the chart also sets in a coordinator's Pod."""


DEMO = frozenset({"demo"})
"""The command that runs a packaged job: it takes the options that decide where the job runs."""


class Panel(StrEnum):
    """The panels of a help page, in order; options without one come before them."""

    CONTINUE = "Continue a job"
    MODEL = "Model and limits"
    ACCESS = "Access for Experts"
    SANDBOXES = "Sandboxes"
    USERS = "Many users on one machine"
    CLUSTER = "With --backend kubernetes"


@dataclass(frozen=True, slots=True)
class Option:
    """How the command line shows a field, as part of the field's annotation.

    `flags` are its names, by default the field's name with hyphens. `variable` is the environment variable that sets
    it, `least` the smallest number. `commands` take it; None means each command with the field.
    """

    help: str
    metavar: str | None = None
    panel: Panel | None = None
    flags: tuple[str, ...] = ()
    variable: str | None = None
    least: float | None = None
    commands: frozenset[str] | None = None


class JobOptions(Frozen):
    """How a job runs, wherever it runs; None means that perstack.toml, the chart or the default decides.

    `env` are names of variables for the Expert's skills and `exec`, `allow_domain` are SKILL=HOST values that add to
    the hosts that skills declare. `timeout_ms` is the milliseconds of one generation; `run_seconds` bounds one attempt
    of a Run, `job_seconds` the whole job from when it starts or continues. `outside` are IP:PORT addresses outside the
    cluster.
    """

    strict: Annotated[bool, Option("Reject unknown keys in perstack.toml.", commands=CONFIG_COMMANDS)] = False
    events: Annotated[
        str, Option("full: events carry the whole conversation.", metavar="default|full", commands=RUN_START_RESUME)
    ] = "default"
    verbose: Annotated[bool, Option("Print more on stderr.", commands=RUN_START_RESUME | {"watch"})] = False
    model: Annotated[
        str | None,
        Option("Model of the provider.", metavar="NAME", panel=Panel.MODEL, commands=JOBS_AND_EXPLAIN),
    ] = None
    provider: Annotated[
        str | None,
        Option(
            "API to call: anthropic, openai, google, scripted, …",
            metavar="NAME",
            panel=Panel.MODEL,
            commands=JOBS_AND_EXPLAIN,
        ),
    ] = None
    max_steps: Annotated[
        int | None,
        Option(
            "Step limit of the whole job. [100]", metavar="N", least=1, panel=Panel.MODEL, commands=JOBS_AND_EXPLAIN
        ),
    ] = None
    max_retries: Annotated[
        int | None,
        Option("Retries per model call. [5]", metavar="N", least=0, panel=Panel.MODEL, commands=JOBS_AND_EXPLAIN),
    ] = None
    reasoning_budget: Annotated[
        str | None,
        Option(
            "none, minimal, low, medium, high, or tokens. [low]",
            metavar="LEVEL|TOKENS",
            panel=Panel.MODEL,
            commands=JOBS_AND_EXPLAIN,
        ),
    ] = None
    timeout_ms: Annotated[
        int | None,
        Option(
            "Timeout per model call, in ms. [300000]",
            metavar="MS",
            least=1,
            flags=("--timeout",),
            panel=Panel.MODEL,
            commands=JOBS_AND_EXPLAIN,
        ),
    ] = None
    run_seconds: Annotated[
        float | None,
        Option(
            "Timeout per Run, default 24 h; the Run then fails.",
            metavar="SECONDS",
            least=0.001,
            flags=("--run-timeout",),
            panel=Panel.MODEL,
            commands=JOBS_AND_EXPLAIN,
        ),
    ] = None
    job_seconds: Annotated[
        float | None,
        Option(
            "Timeout of the whole job; it can be resumed.",
            metavar="SECONDS",
            least=0.001,
            flags=("--job-timeout",),
            panel=Panel.MODEL,
            commands=JOBS_AND_EXPLAIN,
        ),
    ] = None
    env: Annotated[
        tuple[str, ...],
        Option(
            "Variable for EXPERT's skills and exec. Repeatable.",
            metavar="NAME",
            panel=Panel.ACCESS,
            commands=JOBS_EXPLAIN_SHELL,
        ),
    ] = ()
    allow_domain: Annotated[
        tuple[str, ...],
        Option(
            "Allow a skill to reach a host. Repeatable.",
            metavar="SKILL=HOST",
            panel=Panel.ACCESS,
            commands=CONFIG_COMMANDS,
        ),
    ] = ()
    image: Annotated[
        str | None,
        Option(
            "Runtime image.",
            metavar="NAME",
            variable="PERSTACK_RUNTIME_IMAGE",
            panel=Panel.SANDBOXES,
            commands=CONFIG_AND_COORDINATE | DEMO,
        ),
    ] = None
    runtime_class: Annotated[
        str | None,
        Option(
            "The engine's runtime for Sandboxes: runsc (gVisor), kata, …",
            metavar="NAME",
            panel=Panel.SANDBOXES,
            commands=CONFIG_COMMANDS | DEMO,
        ),
    ] = None
    link: Annotated[
        str,
        Option(
            "What joins a Sandbox of Docker and its broker.",
            metavar="auto|socket|stream",
            variable="PERSTACK_LINK",
            panel=Panel.SANDBOXES,
            commands=CONFIG_COMMANDS | DEMO,
        ),
    ] = "auto"
    run_as: Annotated[
        str | None,
        Option(
            "User in Sandboxes. [the workspace's owner]",
            metavar="UID[:GID]",
            panel=Panel.SANDBOXES,
            commands=CONFIG_COMMANDS,
        ),
    ] = None
    workspace_mode: Annotated[
        str,
        Option(
            "Mount the workspace, or work on a copy of it.",
            metavar="auto|bind|copy",
            panel=Panel.SANDBOXES,
            commands=JOBS_EXPLAIN_SHELL,
        ),
    ] = "auto"
    prewarm: Annotated[
        str,
        Option(
            "Warm Sandboxes kept for delegations.",
            metavar="auto|off|N",
            panel=Panel.SANDBOXES,
            commands=JOBS_AND_EXPLAIN,
        ),
    ] = "auto"
    outside: Annotated[
        tuple[str, ...],
        Option(
            "Address that must be blocked; each Sandbox verifies it. Repeatable.",
            metavar="IP:PORT",
            variable="PERSTACK_OUTSIDE",
            panel=Panel.CLUSTER,
            commands=CONFIG_AND_COORDINATE,
        ),
    ] = ()
    start_seconds: Annotated[
        float,
        Option(
            "How long to wait for a Pod to start.",
            metavar="SECONDS",
            least=1,
            flags=("--start-timeout",),
            panel=Panel.CLUSTER,
            commands=CONFIG_COMMANDS | {"watch"},
        ),
    ] = 300.0
    allow_unenforced_network: Annotated[
        bool,
        Option("Run even where NetworkPolicies are not enforced.", panel=Panel.CLUSTER, commands=CONFIG_COMMANDS),
    ] = False


NO_OPTIONS = JobOptions()
"""All defaults."""
