"""The options that several commands share, and those of `log`. None is an option that was not given."""

from typing import Annotated

from orchestrator.images import settings
from orchestrator.plan.job_options import (
    CONFIG_AND_COORDINATE,
    CONFIG_COMMANDS,
    DEMO,
    JOBS_EXPLAIN_SHELL,
    RUN_AND_START,
    RUN_START_RESUME,
    JobOptions,
    Option,
    Panel,
)
from orchestrator.wire.frozen import Frozen

Text = str | None
Texts = tuple[str, ...]

_CONFIG_AND_PRUNE = CONFIG_COMMANDS | {"prune"}
_WITH_STORE = _CONFIG_AND_PRUNE | {"log", "record"}
_ALL_JOBS = _WITH_STORE | {"watch", "cancel"}
"""The commands about the jobs of one user."""

_User = Annotated[
    Text,
    Option(
        "Act as this user; only their jobs and files are visible.",
        metavar="ID",
        variable="PERSTACK_USER",
        panel=Panel.USERS,
        commands=_ALL_JOBS,
    ),
]
_Storage = Annotated[
    str,
    Option(
        "Directory of the job records.",
        metavar="DIR",
        variable="PERSTACK_STORAGE_PATH",
        commands=_WITH_STORE | {"build"},
    ),
]
_Config = Annotated[
    Text,
    Option(
        "perstack.toml to use; default: the nearest one upward.", metavar="FILE", commands=CONFIG_COMMANDS | {"build"}
    ),
]
_Base = Annotated[
    Text,
    Option(f"Base image. [{settings.DEFAULT_BASE}]", metavar="IMAGE", variable=settings.BASE_VARIABLE),
]
_Prices = Annotated[
    Text,
    Option(
        "Your model prices; format: docs/costs.md.",
        metavar="FILE",
        variable="PERSTACK_PRICES",
        commands=RUN_START_RESUME | {"log"},
    ),
]
_Namespace = Annotated[
    Text,
    Option(
        "Namespace of the installation.",
        metavar="NAME",
        variable="PERSTACK_NAMESPACE",
        panel=Panel.CLUSTER,
        commands=_ALL_JOBS,
    ),
]
_Installation = Annotated[
    Text,
    Option(
        "Helm release, if the namespace has several.",
        metavar="NAME",
        variable="PERSTACK_INSTALLATION",
        panel=Panel.CLUSTER,
        commands=_ALL_JOBS,
    ),
]


class RunOptions(JobOptions):
    """Which job a command is about, how it runs, and where: on this machine or in a cluster.

    Each command takes some of these options; the others keep their defaults. `answers` means that the query answers a
    question. `user` and `workspaces` name a user's own directories, from which `cli.user_dirs` derives `storage` and
    `workspace`. `broker_port` is PORT,FORBIDDEN. `expert_key` and `query` are arguments of commands; without a query an
    existing job continues. With `after`, the stored events after this position are written first.
    """

    namespace: _Namespace = None
    installation: _Installation = None
    coordinator: Annotated[
        str,
        Option(
            "Where the coordinator runs: in the cluster, or here.",
            metavar="cluster|local",
            variable="PERSTACK_COORDINATOR",
            panel=Panel.CLUSTER,
            commands=_CONFIG_AND_PRUNE,
        ),
    ] = "cluster"
    env_secret: Annotated[
        Text,
        Option(
            "Secret with the provider keys. [the chart's]",
            metavar="SECRET",
            variable="PERSTACK_ENV_SECRET",
            panel=Panel.CLUSTER,
            commands=CONFIG_COMMANDS,
        ),
    ] = None
    claim: Annotated[
        Text,
        Option(
            "PersistentVolumeClaim of the workspace.",
            metavar="NAME",
            variable="PERSTACK_CLAIM",
            panel=Panel.CLUSTER,
            commands=_CONFIG_AND_PRUNE,
        ),
    ] = None
    claim_mount: Annotated[
        Text,
        Option(
            "Where the claim is mounted here.",
            metavar="DIR",
            variable="PERSTACK_CLAIM_MOUNT",
            panel=Panel.CLUSTER,
            commands=_CONFIG_AND_PRUNE,
        ),
    ] = None
    broker_address: Annotated[
        Texts,
        Option(
            "Address where Pods reach this process. Repeatable.",
            metavar="IP",
            variable="PERSTACK_BROKER_ADDRESS",
            panel=Panel.CLUSTER,
            commands=CONFIG_COMMANDS,
        ),
    ] = ()
    broker_port: Annotated[
        Text,
        Option(
            "Broker port, and a port that stays closed. [any]",
            metavar="PORT,PORT",
            variable="PERSTACK_BROKER_PORT",
            panel=Panel.CLUSTER,
            commands=CONFIG_AND_COORDINATE,
        ),
    ] = None
    pod_setting: Annotated[
        Text,
        Option(
            "Extra Pod settings (JSON file).",
            metavar="FILE",
            variable="PERSTACK_POD_SETTING",
            panel=Panel.CLUSTER,
            commands=CONFIG_AND_COORDINATE,
        ),
    ] = None
    config: _Config = None
    workspace: Annotated[
        Text,
        Option(
            "Directory mounted at /workspace. [./workspace]",
            metavar="DIR|volume:NAME",
            commands=JOBS_EXPLAIN_SHELL,
        ),
    ] = None
    user: _User = None
    workspaces: Annotated[
        Text,
        Option(
            "Directory that holds a workspace per --user.",
            metavar="ROOT",
            variable="PERSTACK_WORKSPACES",
            panel=Panel.USERS,
            commands=JOBS_EXPLAIN_SHELL,
        ),
    ] = None
    storage: _Storage = "perstack"
    packages: Annotated[
        Text,
        Option(
            "Installed packages, in an image of `build`.",
            metavar="DIR",
            variable=settings.PACKAGES_VARIABLE,
            panel=Panel.SANDBOXES,
            commands=RUN_START_RESUME,
        ),
    ] = None
    job_id: Annotated[Text, Option("Id of the new job.", metavar="ID", commands=RUN_AND_START)] = None
    prices: _Prices = None
    continue_latest: Annotated[
        bool,
        Option("Continue the most recent job.", flags=("--continue",), panel=Panel.CONTINUE, commands=RUN_AND_START),
    ] = False
    continue_job: Annotated[
        Text, Option("Continue this job.", metavar="JOB", panel=Panel.CONTINUE, commands=RUN_AND_START)
    ] = None
    resume_from: Annotated[
        Text,
        Option(
            "Continue from this checkpoint of --continue-job.",
            metavar="CHECKPOINT",
            panel=Panel.CONTINUE,
            commands=RUN_AND_START,
        ),
    ] = None
    answers: Annotated[
        bool,
        Option(
            "QUERY answers the Expert's question.",
            flags=("-i", "--interactive-tool-call-result"),
            panel=Panel.CONTINUE,
            commands=RUN_AND_START,
        ),
    ] = False
    env_path: Annotated[
        Texts,
        Option(
            "Env file, instead of .env and .env.local. Repeatable.",
            metavar="FILE",
            panel=Panel.ACCESS,
            commands=CONFIG_COMMANDS,
        ),
    ] = ()
    backend: Annotated[
        str,
        Option(
            "Where Experts run.",
            metavar="docker|kubernetes|process",
            flags=("--backend", "--runtime"),
            panel=Panel.SANDBOXES,
            commands=_CONFIG_AND_PRUNE | DEMO,
        ),
    ] = "docker"
    expert_key: str = ""
    query: Text = None
    after: int | None = None


class BuildOptions(Frozen):
    """How the image of Sandboxes is built. `tag` are further names for it."""

    base: _Base = None
    tag: Annotated[Texts, Option("Another name for the image. Repeatable.", metavar="NAME", flags=("-t", "--tag"))] = ()
    replace: Annotated[bool, Option("Remove the earlier image that has a name of --tag.")] = False


class ExpertImageOptions(Frozen):
    """The image that `build` makes, and of what. Packages of skills are installed in `storage`, as `install` does."""

    tag: Annotated[Text, Option("Name of the image.", metavar="IMAGE", flags=("-t", "--tag"))] = None
    base: _Base = None
    config: _Config = None
    storage: _Storage = "perstack"


class PullOptions(Frozen):
    """Where the image of Sandboxes is pulled from."""

    registry: Annotated[
        Text, Option("Registry that has it.", metavar="HOST[/PATH]", variable=settings.REGISTRY_VARIABLE)
    ] = None


class RecordsOptions(Frozen):
    """Whose records a command reads, and where they are. `backend` is `kubernetes`, or None for a store here."""

    storage: _Storage = "perstack"
    backend: Annotated[Text, Option("For jobs that ran in a cluster.", metavar="kubernetes", panel=Panel.SANDBOXES)] = (
        None
    )
    user: _User = None
    namespace: _Namespace = None
    installation: _Installation = None


class LogOptions(RecordsOptions):
    """What `log` shows. `take` 0 means all."""

    jobs: Annotated[bool, Option("List the jobs, newest first.")] = False
    runs: Annotated[bool, Option("Show the job's tree of Runs and what each used.")] = False
    job: Annotated[Text, Option("Job to show; default: the newest.", metavar="ID")] = None
    run: Annotated[Text, Option("Only events of this Run.", metavar="ID")] = None
    checkpoint: Annotated[Text, Option("A checkpoint, and the events of its Run.", metavar="ID")] = None
    step: Annotated[Text, Option("5, >5, >=5, <5, <=5 or 1-10.", metavar="STEPS")] = None
    type: Annotated[Text, Option("Only events of this type.", metavar="TYPE")] = None
    errors: Annotated[bool, Option("Only errors and retries.")] = False
    tools: Annotated[bool, Option("Only tool calls and their results.")] = False
    delegations: Annotated[bool, Option("Only delegations.")] = False
    filter: Annotated[Text, Option("""Condition, such as '.toolCalls[].toolName == "exec"'.""", metavar="EXPR")] = None
    take: Annotated[int, Option("How many to show; 0 means all.", metavar="N", least=0)] = 100
    offset: Annotated[int, Option("How many to skip first.", metavar="N", least=0)] = 0
    context: Annotated[int, Option("Events to add before and after a match.", metavar="N", least=0)] = 0
    messages: Annotated[bool, Option("Also show the conversation.")] = False
    summary: Annotated[bool, Option("Show only the totals.")] = False
    verbose: Annotated[bool, Option("Show whole events; with --runs, each Run's access.")] = False
    json: Annotated[bool, Option("Print one JSON object.")] = False
    pretty: Annotated[bool, Option("Indent the JSON; implies --json.")] = False
    prices: _Prices = None
