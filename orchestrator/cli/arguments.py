"""The options that `run` and `start` share, as typer reads them."""

from typing import Annotated

import typer

Config = Annotated[str | None, typer.Option(help="perstack.toml to use; else the nearest one upward.")]
Strict = Annotated[bool, typer.Option("--strict", help="Unknown keys in perstack.toml are errors.")]
Workspace = Annotated[str | None, typer.Option(help="Directory mounted at /workspace. [./workspace]")]
Storage = Annotated[str, typer.Option(envvar="PERSTACK_STORAGE_PATH", help="Directory of job records.")]
Backend = Annotated[str, typer.Option("--backend", "--runtime", metavar="docker|process", help="Where Experts run.")]
Model = Annotated[str | None, typer.Option(help="Model of the provider.")]
Provider = Annotated[str | None, typer.Option(help="API to call: anthropic, scripted.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Steps of the whole job. [100]")]
MaxRetries = Annotated[int | None, typer.Option(min=0, help="Retries of one generation. [5]")]
ReasoningBudget = Annotated[
    str | None, typer.Option(metavar="LEVEL|TOKENS", help="none, minimal, low, medium, high, or tokens. [low]")
]
Timeout = Annotated[int | None, typer.Option(metavar="MS", min=1, help="For one generation. [300000]")]
JobId = Annotated[str | None, typer.Option(help="Id of the new job.")]
Env = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Variable given to EXPERT's skills and exec. Repeatable.")
]
EnvPath = Annotated[
    list[str] | None, typer.Option(metavar="FILE", help="Env file, instead of .env and .env.local. Repeatable.")
]
AllowDomain = Annotated[
    list[str] | None, typer.Option(metavar="SKILL=HOST", help="Let a skill reach a host. Repeatable.")
]
Image = Annotated[str | None, typer.Option(help="Runtime image.")]
RunAs = Annotated[str | None, typer.Option(metavar="UID[:GID]", help="User, else the workspace's owner.")]
Events = Annotated[str, typer.Option(metavar="default|full", help="Whether events carry the whole conversation.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")]
ContinueLatest = Annotated[bool, typer.Option("--continue", help="Go on with the most recent job.")]
ContinueJob = Annotated[str | None, typer.Option(metavar="JOB", help="Go on with this job.")]
ResumeFrom = Annotated[
    str | None, typer.Option(metavar="CHECKPOINT", help="Go on from this checkpoint of --continue-job.")
]
Answers = Annotated[
    bool, typer.Option("-i", "--interactive-tool-call-result", help="QUERY answers the Expert's question.")
]
RunTimeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0.001, help="For one Run; past it, it ends in error.")
]
JobTimeout = Annotated[float | None, typer.Option(metavar="SECONDS", min=0.001, help="For all of it; resumable.")]
