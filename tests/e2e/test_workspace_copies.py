"""Jobs whose workspace is a volume of the engine: a copy of the user's directory, or a volume that the user names."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import engine
from tests.support.images import docker
from tests.support.project import ONE, PYTHON, Make, Project, Result, refused, say, use
from tests.support.second_engine import second_engine

pytestmark = [pytest.mark.docker, pytest.mark.parametrize("backend", ["docker"])]

COPY = ("--workspace-mode", "copy")


def program(code: str) -> tuple[str, dict[str, Any]]:
    """A call of `exec` that runs Python code in the workspace."""
    return (
        "exec",
        {"command": PYTHON["docker"], "args": ["-c", code], "env": {}, "cwd": ".", "stdout": True, "stderr": True},
    )


def tree(made: Project) -> dict[str, bytes]:
    """All files of the user's directory, by path; a link by its target."""
    root = made.workspace
    return {
        str(path.relative_to(root)): b"-> " + os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


async def worked(made: Project, *options: str) -> Result:
    """Run the job in a copy; nothing of it may be left at the engine."""
    result = await made.run("one", "go", *COPY, *options)
    assert result.code == 0, result.stderr
    assert engine.volumes(made.instance) == []
    return result


async def test_what_the_job_changed_comes_back_and_guarded_files_never_go_in(project: Make) -> None:
    """New, changed and deleted files reach the directory; what did not change keeps its inode; `.env` is not inside."""
    code = (
        "import os\n"
        "assert sorted(os.listdir('.')) == ['changed', 'deleted', 'kept', 'link', 'run.sh', 'sub'], os.listdir('.')\n"
        "open('changed', 'w').write('new'); os.remove('deleted')\n"
        "os.makedirs('made/deep'); open('made/deep/x', 'w').write('x'); os.symlink('../kept', 'made/to-kept')\n"
        "os.chmod('run.sh', 0o755); open('.env', 'w').write('PLANTED'); print('all done')"
    )
    made = project(ONE, {"one": [use(program(code)), say("done")]})
    (made.workspace / "sub").mkdir(parents=True)
    for name in ("changed", "deleted", "kept", "run.sh", "sub/inner"):
        (made.workspace / name).write_text(name)
    (made.workspace / "link").symlink_to("kept")
    (made.workspace / ".env").write_text("SECRET=1")
    (made.workspace / "perstack.lock").write_text("")
    kept = (made.workspace / "kept").stat()
    give(made)
    result = await worked(made)
    assert b"all done" in result.stdout, result.stdout
    assert tree(made) == {
        ".env": b"SECRET=1",
        "changed": b"new",
        "env.from-sandbox": b"PLANTED",
        "kept": b"kept",
        "link": b"-> kept",
        "made/deep/x": b"x",
        "made/to-kept": b"-> ../kept",
        "perstack.lock": b"",
        "run.sh": b"run.sh",
        "sub/inner": b"sub/inner",
    }
    assert (made.workspace / "kept").stat().st_ino == kept.st_ino
    assert {path.lstat().st_uid for path in made.workspace.rglob("*")} == {1000}
    assert (made.workspace / "run.sh").stat().st_mode & 0o777 == 0o755
    assert "works on a copy" in result.stderr
    assert ".env has a name that only you may write: the job's is env.from-sandbox" in result.stderr


async def test_a_file_of_the_user_that_changed_meanwhile_is_kept(project: Make) -> None:
    """Both changed it: the user's stays, the job's is next to it. A changed file that the job deleted stays too."""
    code = (
        "import os, time\n"
        "open('both', 'w').write('job'); os.remove('gone'); os.remove('there'); open('new', 'w').write('job')\n"
        "time.sleep(4)"
    )
    made = project(ONE, {"one": [use(program(code)), say("done")]})
    made.workspace.mkdir()
    for name in ("both", "gone", "there"):
        (made.workspace / name).write_text("before")
    give(made)
    process = await made.start("run", *COPY, "one", "go")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b'"callTools"' not in await process.stdout.readline():
            pass
    for name in ("both", "there", "new"):
        (made.workspace / name).write_text("user")
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr
    assert tree(made) == {
        "both": b"user",
        "both.from-sandbox": b"job",
        "new": b"user",
        "new.from-sandbox": b"job",
        "there": b"user",
    }
    assert b"there changed here while the job deleted it, so it was kept" in stderr
    assert b"both changed here while the job changed it: the job's is both.from-sandbox" in stderr
    assert engine.volumes(made.instance) == []


SLOW = "import time; open('begun', 'w').write('x'); time.sleep(5); open('done', 'w').write('y')"


async def begun(made: Project, *options: str) -> asyncio.subprocess.Process:
    """Start a job in a copy, and wait until its command runs."""
    made.workspace.mkdir()
    (made.workspace / "kept").write_text("kept")
    give(made)
    process = await made.start("run", "--job-id", "j", *COPY, *options, "one", "go")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b'"callTools"' not in await process.stdout.readline():
            pass
    await asyncio.sleep(1)
    return process


async def test_a_job_that_is_stopped_copies_back(project: Make) -> None:
    """After Ctrl-C the files are in the directory, and nothing is left; `resume` copies them in again."""
    made = project(ONE, {"one": [use(program(SLOW)), say("done")]})
    process = await begun(made)
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    assert process.returncode == 130, stderr
    assert tree(made) == {"begun": b"x", "kept": b"kept"}
    assert engine.volumes(made.instance) == []
    assert (await made.command("resume", *COPY, "j")).code == 0
    assert tree(made) == {"begun": b"x", "done": b"y", "kept": b"kept"}
    assert engine.volumes(made.instance) == []


async def test_a_killed_orchestrator_loses_nothing(project: Make) -> None:
    """Its Sandbox works on in the volume; `resume` waits for it, whatever its options are, and copies back."""
    made = project(ONE, {"one": [use(program(SLOW)), say("done")]})
    process = await begun(made)
    process.kill()
    await process.communicate()
    assert tree(made) == {"kept": b"kept"}
    result = await made.command("resume", "j")
    assert result.code == 0, result.stderr
    assert tree(made) == {"begun": b"x", "done": b"y", "kept": b"kept"}
    assert engine.volumes(made.instance) == []


async def test_prune_copies_back_what_a_killed_job_left(project: Make) -> None:
    """The job waits for `resume` and keeps its volume; with `--all` its Sandboxes end and its files come back."""
    made = project(ONE, {"one": [use(program(SLOW.replace("5", "90"))), say("done")]})
    process = await begun(made)
    process.kill()
    await process.communicate()
    assert (await made.command("prune")).stdout == b""
    assert len(engine.volumes(made.instance)) == 1
    result = await made.command("prune", "--all")
    assert result.code == 0, result.stderr
    assert tree(made) == {"begun": b"x", "kept": b"kept"}
    assert engine.volumes(made.instance) == []


async def test_a_copy_back_that_fails_is_completed_later(project: Make) -> None:
    """The directory is gone at the job's end: exit 3, the volume stays; `resume` completes it once it is back."""
    made = project(ONE, {"one": [use(program(SLOW)), say("done")]})
    process = await begun(made)
    aside = made.workspace.with_name("aside")
    made.workspace.rename(aside)
    _, stderr = await process.communicate()
    assert process.returncode == 3, stderr
    assert b"perstack-orch resume j" in stderr, stderr
    assert len(engine.volumes(made.instance)) == 1
    aside.rename(made.workspace)
    result = await made.command("resume", "j")
    assert result.code == 0, result.stderr
    assert tree(made) == {"begun": b"x", "done": b"y", "kept": b"kept"}
    assert engine.volumes(made.instance) == []


async def test_a_copy_back_that_is_killed_is_completed(project: Make) -> None:
    """The orchestrator is killed after the first of many files: `resume` brings the others and tidies up."""
    code = "import os\nfor n in range(400): open(f'f{n:03}', 'wb').write(os.urandom(10) * 20000)"
    made = project(ONE, {"one": [use(program(code)), say("done")]})
    made.workspace.mkdir()
    give(made)
    process = await made.start("run", "--job-id", "j", *COPY, "one", "go")
    reading = asyncio.create_task(process.communicate())
    async with asyncio.timeout(100):
        while not list(made.workspace.glob("f*")):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.001)
    process.kill()
    await reading
    early = len(list(made.workspace.glob("f*")))
    assert early < 400
    (made.workspace / "mine").write_text("mine")
    assert (await made.command("prune")).code == 0
    assert len(engine.volumes(made.instance)) == 1
    result = await made.command("resume", "j")
    assert result.code == 0, result.stderr
    assert sorted(path.name for path in made.workspace.iterdir()) == [*(f"f{n:03}" for n in range(400)), "mine"]
    assert {path.stat().st_size for path in made.workspace.glob("f*")} == {200_000}


async def test_a_volume_that_the_user_names_is_kept(project: Make) -> None:
    """Two jobs, one after the other, see one volume, and no directory is made; if a container has it, it is refused."""
    name = f"perstack-test-{os.getpid()}"
    read = program("print(open('made').read())")
    made = project(ONE, {"one": [use(program("open('made', 'w').write('by a job')")), say("done")]})
    try:
        first = await made.run("one", "go", "--workspace", f"volume:{name}")
        assert first.code == 0, first.stderr
        made.script({"one": [use(read), say("done")]})
        second = await made.run("one", "go", "--workspace", f"volume:{name}")
        assert second.code == 0, second.stderr
        assert b"by a job" in second.stdout
        assert not made.workspace.exists()
        docker("create", "--name", f"{name}-holder", "-v", f"{name}:/x", engine.runtime_image())
        refused(await made.run("one", "go", "--workspace", f"volume:{name}"), 2, name, "in use by the container")
    finally:
        docker("rm", "-f", f"{name}-holder")
        docker("volume", "rm", name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workspace", "volume:"), "volume's name"),
        (("--workspace", "volume:../x"), "volume's name"),
        (("--workspace-mode", "clone"), "auto, bind, copy"),
        (("--backend", "process", "--workspace", "volume:xy"), "has no volumes"),
        (("--backend", "process", *COPY), "has no volumes"),
    ],
)
async def test_bad_options_are_refused(project: Make, options: tuple[str, ...], words: str) -> None:
    """One sentence, exit code 2."""
    refused(await project(ONE, {"one": [say("done")]}).command("run", *options, "one", "go"), 2, words)


@pytest.mark.parametrize(
    "program_text",
    [
        # Each tries to have something written outside of the directory, or over a guarded file.
        "os.symlink('/etc', 'etc'); os.symlink('../../outside', 'up'); os.symlink('a/../../outside', 'over')",
        "os.rename('sub', 'aside'); os.symlink('../outside', 'sub'); open('PERSTACK.TOML', 'w').write('x')",
        "os.mkfifo('pipe'); import socket; socket.socket(socket.AF_UNIX).bind('socket'); open('.Env', 'w').write('x')",
        "[open(name, 'w').write('x') for name in ('perstack.toml', 'perstack.lock ', '.e\\u200cnv')]",
    ],
)
async def test_hostile_trees_change_nothing_outside(project: Make, program_text: str) -> None:
    """Links out of the workspace, pipes and guarded names stay out; ordinary files of the same job come back."""
    code = f"import os\n{program_text}; open('ordinary', 'w').write('x')"
    made = project(ONE, {"one": [use(program(code)), say("done")]})
    (made.workspace / "sub").mkdir(parents=True)
    (made.workspace / "sub/file").write_text("x")
    (made.workspace / ".env").write_text("SECRET")
    give(made)
    outside = made.directory / "outside"
    outside.mkdir()
    result = await worked(made)
    assert b"Error" not in result.stdout, result.stdout
    assert list(outside.iterdir()) == []
    found = tree(made)
    assert found.pop("ordinary") == b"x"
    assert found.pop(".env") == b"SECRET"
    assert all(name.endswith(".from-sandbox") or name in {"sub/file", "aside/file"} for name in found), found
    assert not any(content.startswith(b"-> ") for content in found.values())


async def test_a_shell_has_a_copy_that_is_dropped(project: Make) -> None:
    """It sees the files that an Expert would, and what it changes goes nowhere."""
    made = project(ONE, {"one": []})
    made.workspace.mkdir()
    (made.workspace / "given").write_text("given")
    (made.workspace / ".env").write_text("SECRET")
    give(made)
    code = "import os; print(sorted(os.listdir('.'))); open('made', 'w').write('x')"
    result = await made.command("shell", *COPY, "one", "--", PYTHON["docker"], "-c", code)
    assert result.code == 0, result.stderr
    assert b"['given']" in result.stdout
    assert tree(made) == {".env": b"SECRET", "given": b"given"}
    assert "dropped" in result.stderr


async def test_explain_shows_the_copy(project: Make) -> None:
    """The volume is the source of /workspace, and no guarded file is mounted; nothing is made for it."""
    made = project(ONE, {"one": []})
    made.workspace.mkdir()
    (made.workspace / ".env").write_text("SECRET")
    give(made)
    result = await made.command("explain", *COPY, "one")
    assert result.code == 0, result.stderr
    (line,) = [line for line in result.stdout.decode().splitlines() if "/workspace" in line]
    assert line.endswith("-w"), line


async def test_a_workspace_that_cannot_be_copied_leaves_no_volume(project: Make) -> None:
    """An image without the directory for it: exit 3 with the remedy."""
    made = project(ONE, {"one": [say("done")]})
    made.workspace.mkdir()
    give(made)
    image = f"perstack-test-old:{os.getpid()}"
    holder = docker("create", "--entrypoint", "/bin/false", engine.runtime_image()).strip()
    try:
        # An image of one layer, without the directory.
        script = f"docker export {holder} | tar --delete workspace | docker import - {image}"
        docker_shell(script)
        result = await made.run("one", "go", *COPY, "--image", image)
    finally:
        docker("rm", holder)
        docker("image", "rm", image)
    assert result.code == 3, result.stderr
    assert f"the image {image} has no directory /workspace" in result.stderr
    assert engine.volumes(made.instance) == []


def docker_shell(script: str) -> None:
    """Run a pipeline of docker commands."""
    subprocess.run(["bash", "-o", "pipefail", "-c", script], check=True, capture_output=True)  # noqa: S607


async def test_a_sparse_file_does_not_fill_the_disk(project: Make) -> None:
    """A file of a terabyte ends the copy back before anything is written; the volume stays until the user decides."""
    made = project(
        ONE, {"one": [use(program("open('huge', 'w').truncate(2**40); open('x', 'w').write('x')")), say("done")]}
    )
    made.workspace.mkdir()
    give(made)
    result = await made.run("one", "go", "--job-id", "j", *COPY)
    assert result.code == 3
    assert "more bytes than fit" in result.stderr
    assert tree(made) == {}
    (volume,) = engine.volumes(made.instance)
    docker("volume", "rm", volume)
    result = await made.command("resume", "j")
    assert result.code == 0, result.stderr
    assert "was removed, and with it" in result.stderr


async def test_a_job_whose_volume_is_gone_does_not_continue_on_an_empty_one(project: Make) -> None:
    """A mount would make an empty volume, and all the user's files would then count as deleted by the job."""
    made = project(ONE, {"one": [use(program("open('made', 'w').write('x')")), say("done"), say("again")]})
    made.workspace.mkdir()
    (made.workspace / "kept").write_text("of the user")
    give(made)
    process = await made.start("run", "one", "go", "--job-id", "j", *COPY)
    assert process.stdout is not None
    await process.stdout.readline()
    process.kill()
    await process.communicate()
    for container in docker("ps", "--all", "--quiet", "--filter", "label=perstack.ai/job").split():
        if "j-" in docker("inspect", "--format", "{{.Name}}", container):
            docker("rm", "--force", container)
    (volume,) = engine.volumes(made.instance)
    docker("volume", "rm", volume)
    result = await made.command("resume", "j")
    assert result.code == 3, result.stderr
    assert f"the volume {volume} was removed, and with it what job j changed: `perstack-orch resume j`" in result.stderr
    assert tree(made) == {"kept": b"of the user"}
    assert docker("volume", "ls", "--quiet", "--filter", f"name={volume}") == ""
    again = await made.command("resume", "j")
    assert again.code == 0, again.stderr
    assert tree(made)["kept"] == b"of the user"


def give(made: Project) -> None:
    """Give the workspace to an ordinary user, as whom Sandboxes run."""
    subprocess.run(["chown", "-R", "1000:1000", made.workspace], check=True)  # noqa: S607


@pytest.mark.disturbing
@pytest.mark.parametrize("link", ["socket", "stream"])
async def test_an_engine_that_does_not_see_the_directory_gets_a_copy(project: Make, tmp_path: Path, link: str) -> None:
    """Without any option, as with an engine elsewhere: one sentence, and the files come back; nothing stays there."""
    code = "import os; print(sorted(os.listdir('.'))); open('made', 'w').write('far away')"
    made = project(ONE, {"one": [use(program(code)), say("done")]})
    made.workspace.mkdir()
    (made.workspace / "given").write_text("given")
    give(made)
    async with second_engine(Path("/var/lib") / f"perstack-test-{os.getpid()}", hidden=tmp_path) as far:
        there = {"DOCKER_HOST": far.address}
        result = await made.run("one", "go", "--link", link, env=there)
        assert result.code == 0, result.stderr
        assert b"['given']" in result.stdout
        assert tree(made) == {"given": b"given", "made": b"far away"}
        assert result.stderr.count("the engine does not see its files") == 1
        refused(await made.run("one", "go", "--workspace-mode", "bind", env=there), 2, "does not see its files")
        assert far.docker("volume", "ls", "--quiet") == far.docker("ps", "--all", "--quiet") == ""
