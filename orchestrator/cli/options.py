"""The options that commands share, as typer reads them and as they were typed; None is one that was not given."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

_Text = str | None
_Texts = tuple[str, ...]
_Seconds = float | None

Storage = Annotated[str, typer.Option(metavar="DIR", envvar="PERSTACK_STORAGE_PATH", help="Directory of job records.")]
Prices = Annotated[
    str | None,
    typer.Option(metavar="FILE", envvar="PERSTACK_PRICES", help="Your prices of models, as docs/costs.md says."),
]
Backend = Annotated[
    str, typer.Option("--backend", "--runtime", metavar="docker|kubernetes|process", help="Where Experts run.")
]


User = Annotated[
    _Text,
    typer.Option("--user", metavar="ID", envvar="PERSTACK_USER", help="Whose jobs and files: see nobody else's."),
]


Namespace = Annotated[
    _Text, typer.Option(metavar="NAME", envvar="PERSTACK_NAMESPACE", help="Namespace in the cluster.")
]
Installation = Annotated[
    _Text, typer.Option(metavar="NAME", envvar="PERSTACK_INSTALLATION", help="Which chart, if several are there.")
]


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Where in a cluster Sandboxes run, with --backend kubernetes; the chart sets the variables.

    `outside` are HOST:PORT, `broker_port` is PORT,FORBIDDEN. All but `namespace`, `outside`, `start_seconds` and
    `allow_unenforced_network` are for one of the two kinds of `coordinator`.
    """

    namespace: Namespace = None
    claim: Annotated[
        _Text, typer.Option(metavar="NAME", envvar="PERSTACK_CLAIM", help="PersistentVolumeClaim of the workspace.")
    ] = None
    claim_mount: Annotated[
        _Text, typer.Option(metavar="DIR", envvar="PERSTACK_CLAIM_MOUNT", help="Where the claim is mounted here.")
    ] = None
    broker_address: Annotated[
        _Texts,
        typer.Option(metavar="IP", envvar="PERSTACK_BROKER_ADDRESS", help="Where Pods reach this. Repeatable."),
    ] = ()
    broker_port: Annotated[
        _Text, typer.Option(metavar="PORT,PORT", envvar="PERSTACK_BROKER_PORT", help="Ports of the broker. [any]")
    ] = None
    outside: Annotated[
        _Texts,
        typer.Option(
            metavar="IP:PORT", envvar="PERSTACK_OUTSIDE", help="Address no Sandbox may reach: it tries. Repeatable."
        ),
    ] = ()
    start_seconds: Annotated[
        float, typer.Option("--start-timeout", metavar="SECONDS", min=1, help="For a Pod to come to run.")
    ] = 300.0
    pod_setting: Annotated[
        _Text,
        typer.Option(metavar="FILE", envvar="PERSTACK_POD_SETTING", help="What Pods are given besides, in JSON."),
    ] = None
    coordinator: Annotated[
        str,
        typer.Option(
            metavar="cluster|local",
            envvar="PERSTACK_COORDINATOR",
            help="A Job of the cluster works it, or this process.",
        ),
    ] = "cluster"
    installation: Installation = None
    env_secret: Annotated[
        _Text,
        typer.Option(metavar="SECRET", envvar="PERSTACK_ENV_SECRET", help="Secret of provider keys. [the chart's]"),
    ] = None
    allow_unenforced_network: Annotated[
        bool,
        typer.Option("--allow-unenforced-network", help="Run also where no NetworkPolicy keeps Sandboxes in."),
    ] = False


CLUSTER = frozenset(field.name for field in dataclasses.fields(ClusterOptions))
"""The names of those."""


@dataclass(frozen=True, slots=True)
class RunOptions(ClusterOptions):
    """How a job is to be run.

    `timeout_ms` is for one generation. `allow_domain` are SKILL=HOST. `answers` says that the query is the answer to
    a question. `user` and `workspaces` name a user's own place, of which `cli.own` makes `storage` and `workspace`.
    Without `query` a job is only gone on with; both it and the Expert are a command's arguments. With
    `after`, the stored events that follow this position are written first.
    """

    config: Annotated[
        _Text, typer.Option(metavar="FILE", help="perstack.toml to use; else the nearest one upward.")
    ] = None
    strict: Annotated[bool, typer.Option("--strict", help="Unknown keys in perstack.toml are errors.")] = False
    workspace: Annotated[_Text, typer.Option(metavar="DIR", help="Directory mounted at /workspace. [./workspace]")] = (
        None
    )
    user: User = None
    workspaces: Annotated[
        _Text,
        typer.Option(metavar="ROOT", envvar="PERSTACK_WORKSPACES", help="Holds a workspace for each --user."),
    ] = None
    storage: Storage = "perstack"
    backend: Backend = "docker"
    model: Annotated[_Text, typer.Option(metavar="NAME", help="Model of the provider.")] = None
    provider: Annotated[
        _Text, typer.Option(metavar="NAME", help="API to call: anthropic, openai, google, scripted, …")
    ] = None
    max_steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Steps of the whole job. [100]")] = None
    max_retries: Annotated[int | None, typer.Option(metavar="N", min=0, help="Retries of one generation. [5]")] = None
    reasoning_budget: Annotated[
        _Text, typer.Option(metavar="LEVEL|TOKENS", help="none, minimal, low, medium, high, or tokens. [low]")
    ] = None
    timeout_ms: Annotated[
        int | None, typer.Option("--timeout", metavar="MS", min=1, help="For one generation. [300000]")
    ] = None
    job_id: Annotated[_Text, typer.Option(metavar="ID", help="Id of the new job.")] = None
    env: Annotated[
        _Texts, typer.Option(metavar="NAME", help="Variable given to EXPERT's skills and exec. Repeatable.")
    ] = ()
    env_path: Annotated[
        _Texts, typer.Option(metavar="FILE", help="Env file, instead of .env and .env.local. Repeatable.")
    ] = ()
    allow_domain: Annotated[
        _Texts, typer.Option(metavar="SKILL=HOST", help="Let a skill reach a host. Repeatable.")
    ] = ()
    image: Annotated[_Text, typer.Option(metavar="NAME", envvar="PERSTACK_RUNTIME_IMAGE", help="Runtime image.")] = None
    runtime_class: Annotated[
        _Text, typer.Option(metavar="NAME", help="What runs Sandboxes in the engine: runsc (gVisor), kata, …")
    ] = None
    run_as: Annotated[_Text, typer.Option(metavar="UID[:GID]", help="User, else the workspace's owner.")] = None
    prewarm: Annotated[
        str, typer.Option(metavar="auto|off|N", help="Sandboxes kept ready for delegations before they are needed.")
    ] = "auto"
    events: Annotated[
        str, typer.Option(metavar="default|full", help="Whether events carry the whole conversation.")
    ] = "default"
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")] = False
    continue_latest: Annotated[bool, typer.Option("--continue", help="Go on with the job used last.")] = False
    continue_job: Annotated[_Text, typer.Option(metavar="JOB", help="Go on with this job.")] = None
    resume_from: Annotated[
        _Text, typer.Option(metavar="CHECKPOINT", help="Go on from this checkpoint of --continue-job.")
    ] = None
    answers: Annotated[
        bool, typer.Option("-i", "--interactive-tool-call-result", help="QUERY answers the Expert's question.")
    ] = False
    run_seconds: Annotated[
        _Seconds,
        typer.Option(
            "--run-timeout", metavar="SECONDS", min=0.001, help="For one Run, else a day; past it, it ends in error."
        ),
    ] = None
    job_seconds: Annotated[
        _Seconds, typer.Option("--job-timeout", metavar="SECONDS", min=0.001, help="For all of it; resumable.")
    ] = None
    prices: Prices = None
    expert_key: str = ""
    query: str | None = None
    after: int | None = None


def with_options(
    shape: Callable[..., Any], wanted: Callable[[str], bool] = lambda _: True
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Have typer read a command's options from the fields of the dataclass `shape`.

    The command's first parameter is then a `shape`; its others stay as they are and come before the options. Fields
    whose names are not `wanted` keep their default, as do those that are not annotated for typer.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        options = [option for option in _options(shape) if wanted(option.name)]

        @functools.wraps(command)
        def typed(**given: Any) -> int:
            chosen = {option.name: _frozen(given.pop(option.name)) for option in options}
            return command(shape(**chosen), **given)

        parameters = [*own, *options]
        typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # inspect.signature reads it
        typed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return typed

    return decorate


def _options(shape: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(shape, include_extras=True)
    for field in dataclasses.fields(shape):  # type: ignore[arg-type] # a dataclass is callable too
        hint = hints[field.name]
        if get_origin(hint) is Annotated:
            kind, option = get_args(hint)
            if get_origin(kind) is tuple:
                hint = Annotated[list[str], option]  # typer knows no tuple of any length
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
