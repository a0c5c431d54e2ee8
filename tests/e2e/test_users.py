"""Users who share a machine: `--user` in every command, and nothing of one for another."""

import asyncio
import json

import pytest

from orchestrator.workspace.users import directory_name
from tests.support.project import ONE, Make, Project, Result, say, use

pytestmark = pytest.mark.on_engines

WRITE = use(("writeTextFile", {"path": "mine.txt", "text": "of this user"}))
LIST = use(("listDirectory", {"path": "."}))


def shared(project: Make) -> Project:
    """A project with a root of workspaces, whose Expert looks around and then writes a file."""
    made = project(ONE, {"one": [LIST, WRITE, say("done"), say("again")]})
    (made.directory / "homes").mkdir()
    return made


async def as_user(made: Project, user: str, *arguments: str) -> Result:
    """Run a command as one of the users."""
    return await made.command(arguments[0], *arguments[1:], env={"PERSTACK_USER": user})


def files(made: Project, user: str) -> list[str]:
    """What is in a user's workspace."""
    return sorted(path.name for path in (made.directory / "homes" / directory_name(user) / "workspace").iterdir())


async def test_users_see_nothing_of_one_another(project: Make) -> None:
    """Files, jobs, the newest one, what can be continued, recorded or pruned: each user sees only their own."""
    made = shared(project)
    run = ("run", "--backend", made.backend, "--workspaces", "homes")
    for user in ("ann", "Ann"):
        result = await as_user(made, user, *run, "--job-id", f"of-{directory_name(user)[:3]}", "one", "go")
        assert result.code == 0, result.stderr
        before = result.stdout.split(b"writeTextFile")[0]
        assert [name for name in (b"mine.txt", b"user.json") if name in before] == []
        assert files(made, user) == ["mine.txt"]
    assert not made.workspace.exists()
    jobs = {user: json.loads((await as_user(made, user, "log", "--jobs", "--json")).stdout) for user in ("ann", "Ann")}
    assert [len(jobs[user]["jobs"]) for user in jobs] == [1, 1]
    assert b"No data found" in (await as_user(made, "bob", "log", "--jobs")).stdout
    assert b"No data found" in (await made.command("log", "--jobs")).stdout
    mine = jobs["ann"]["jobs"][0]["id"]
    for command in (("resume", "--backend", made.backend, "--workspaces", "homes", mine), ("record", mine)):
        refused = await as_user(made, "bob", *command)
        assert (refused.code, "is not in the store" in refused.stderr) == (2, True)
    assert (await as_user(made, "bob", *run, "--continue", "one", "more")).code == 2
    assert (await as_user(made, "ann", "record", mine, "--output", "mine.json")).code == 0
    assert (await as_user(made, "ann", *run, "--continue", "one", "more")).code == 0
    assert (await as_user(made, "ann", "prune", "--backend", made.backend)).code == 0


async def test_tricks_in_a_name_lead_nowhere(project: Make) -> None:
    """They are names of directories below the root like any other, and of nothing else."""
    made = shared(project)
    for user in ("../../out", "-x", "a:b", "a\nb", "x" * 300):
        result = await made.command(
            *("run", "--backend", made.backend, "--workspaces", "homes", f"--user={user}", "one", "go")
        )
        assert result.code == 0, result.stderr
        assert files(made, user) == ["mine.txt"]
    assert {path.name for path in made.directory.iterdir()} == {"perstack.toml", "replies.json", "homes", "perstack"}
    empty = await made.command("run", "--backend", made.backend, "--workspaces", "homes", "--user=", "one", "go")
    assert (empty.code, "--user '' is not usable" in empty.stderr) == (2, True)


async def test_options_that_contradict(project: Make) -> None:
    """A user needs a root of workspaces, and has their own workspace."""
    made = shared(project)
    for options, why in (
        (("--user", "a"), "--user needs --workspaces ROOT"),
        (("--workspaces", "homes"), "--workspaces needs --user ID"),
        (("--user", "a", "--workspaces", "homes", "--workspace", "."), "--workspace and --user exclude each other"),
        (("--user", "a", "--workspaces", "absent"), "no directory"),
    ):
        for command in ("run", "explain", "shell"):
            words = ("one", "go") if command == "run" else ("one",)
            result = await made.command(command, "--backend", made.backend, *options, *words)
            assert (result.code, why in result.stderr) == (2, True), (command, result.stderr)


async def test_shell_explain_and_install_are_the_user_s_too(project: Make) -> None:
    """The shell is in the user's files, `explain` names them, `install` keeps packages in the user's store."""
    made = shared(project)
    place = ("--backend", made.backend, "--workspaces", "homes")
    result = await as_user(made, "ann", "shell", *place, "one", "--", "touch", "by-shell")
    assert result.code == 0, result.stderr
    assert files(made, "ann") == ["by-shell"]
    told = await as_user(made, "ann", "explain", *place, "--json", "one")
    if made.backend == "docker":
        workspace = made.directory / "homes" / directory_name("ann") / "workspace"
        assert json.loads(told.stdout)["mounts"][0]["source"] == str(workspace)
    installed = await as_user(made, "ann", "install", "--backend", made.backend)
    assert installed.code == 0, installed.stderr


async def test_two_users_at_once_with_one_job_id(project: Make) -> None:
    """Neither is in the other's way."""
    made = shared(project)

    def start(user: str) -> "asyncio.Task[Result]":
        options = ("--backend", made.backend, "--workspaces", "homes", "--job-id", "j")
        return asyncio.ensure_future(as_user(made, user, "run", *options, "one", "go"))

    results = [await task for task in [start("ann"), start("bob")]]
    assert [result.code for result in results] == [0, 0], [result.stderr for result in results]
    assert [files(made, user) for user in ("ann", "bob")] == [["mine.txt"]] * 2
