"""`start`: a conversation at a real terminal, and over pipes."""

import json
import os
import re
import shlex
import subprocess
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.support.processes import command_lines
from tests.support.project import ASKING, COMMAND, FROM_HERE, ONE, PYTHON, TEAM, Make, Project, ask, say, use
from tests.support.pty_user import Typist, typist

OURS = re.compile(rb"\x1b\[(?:A|J|\?2004[hl])")
"""What the command itself and its line editor write to a terminal."""


def _env() -> dict[str, str]:
    clean = {name: os.environ[name] for name in FROM_HERE if name in os.environ}
    return clean | {"TERM": "xterm", "LANG": "C.UTF-8"}


def _sitting(made: Project, *arguments: str) -> AbstractContextManager[Typist]:
    return typist((*COMMAND, "start", "--backend", made.backend, *arguments), made.directory, _env())


def _piped(made: Project, typed: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, "start", "--backend", made.backend, *arguments],
        cwd=made.directory, env=_env(), input=typed, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _status(made: Project, job_id: str) -> str:
    return str(json.loads((made.store / "jobs" / job_id / "job.json").read_text())["status"])


def test_a_question_is_answered_and_the_conversation_continues(project: Make) -> None:
    """The question is shown, the answer taken, a follow-up works, an empty line ends with the last turn's code."""
    made = project(ASKING, {"one": [use(("confirm", {"q": "ready?"})), say("then go"), say("and more")]})
    with _sitting(made, "--job-id", "talk", "one", "begin") as person:
        person.see(r"one asks you \(confirm\): ready\?")
        person.see("your answer to one > ")
        person.type("yes\n")
        person.see("one: then go")
        person.see("what next.* > ")
        person.type("more\n")
        person.see("one: and more")
        person.see("what next.* > ")
        person.type("\n")
        backend = "" if made.backend == "docker" else f"--backend {made.backend} "
        person.see(f"continue it: perstack-orch start {backend}--continue-job talk one\r\n")
        assert person.end() == 0
    assert _status(made, "talk") == "completed"
    assert "Traceback" not in person.text


def test_missing_expert_and_query_are_prompted_for(project: Make) -> None:
    """Without EXPERT the Experts are listed and chosen by number; without QUERY a prompt follows; Ctrl-D ends."""
    made = project(TEAM, {"left": [say("left done")]})
    with _sitting(made) as person:
        person.see(r"1\. boss\r\n2\. left\r\n3\. right\r\n")
        person.type("2\n")
        person.see(r"task for left\?")
        person.type("work\n")
        person.see("left: left done")
        person.see("what next.* > ")
        person.type("\x04")
        assert person.end() == 0


def test_the_tree_of_runs_is_live(project: Make) -> None:
    """Delegates stand below their coordinator with step, tokens, time and container while they work."""
    usage = {"usage": {"inputTokens": 10, "outputTokens": 2}}
    replies = {
        "boss": [use(ask("left", "l"), ask("right", "r")) | usage, say("both") | usage],
        "left": [say("left half") | usage],
        "right": [use(("listDirectory", {"path": "."})) | usage, say("right half") | usage | {"delayMs": 1_500}],
    }
    with _sitting(project(TEAM, replies), "--job-id", "tree", "boss", "go") as person:
        person.see(r"└ right · step 3 · calling the model · 12 tokens · 0:0\d · tree-\w{6}-s\d")
        person.see("boss: both")
        person.see(r"boss · step 5 · completed · 24 tokens · 0:0\d · tree-\w{6}-s\d\r\n")
        person.see(r"└ left · step \d · completed · 12 tokens")
        person.see("what next.* > ")
        person.type("\n")
        assert person.end() == 0


def test_nothing_from_a_container_steers_the_terminal(project: Make) -> None:
    """Escapes in a tool's result, in arguments and in the Expert's words arrive as text without their escape."""
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
    made = project(
        ASKING,
        {
            "one": [
                use(("writeTextFile", {"path": "a", "text": hostile})),
                use(
                    ("readTextFile", {"path": "a"}),
                    (
                        "exec",
                        {
                            "command": "printf",
                            "args": ["\\033[2Jx"],
                            "env": {},
                            "cwd": "/workspace",
                            "stdout": True,
                            "stderr": False,
                        },
                    ),
                ),
                use(("confirm", {"q": hostile + "sure?"})),
                say(hostile + "the end"),
            ]
        },
    )
    with _sitting(made, "one", "go") as person:
        person.see(r"sure\?")
        person.see("your answer to one > ")
        person.type("y\n")
        person.see("the end")
        person.see("what next.* > ")
        person.type("\n")
        assert person.end() == 0
    left = OURS.sub(b"", person.shown)
    assert b"owned" in left
    assert [bad for bad in ("\x1b", "\x07", "\x9b", "\u202e") if bad in left.decode()] == []


@pytest.mark.parametrize("backend", ["process"])
def test_run_keeps_a_line_live_and_ends_in_result_and_receipt(project: Make) -> None:
    """With its events in a file, a user sees which Run works on what, then the answer and what it took, and no more."""
    replies = {"boss": [use(ask("left", "l")), say("all done")], "left": [say("half") | {"delayMs": 1_000}]}
    made = project(TEAM, replies)
    command = shlex.join([*COMMAND, "run", "--backend", made.backend, "boss", "go"]) + " > events.jsonl"
    with typist(("/bin/sh", "-c", command), made.directory, _env()) as person:
        person.see(r"\r\x1b\[Kboss > left · step 2 · calling the model · 0 tokens · 0:0\d")
        person.see(r"\r\x1b\[Kboss: all done\r\n\r\n3 processes · 0 keys inside · 0 hosts · 0 tokens · \d+\.\d s\r\n")
        person.see(r"  hop to left: \d+ ms\r\n  hop to boss: \d+ ms\r\n(?:\r\x1b\[K)?$")
        assert person.end() == 0
    assert len((made.directory / "events.jsonl").read_text().splitlines()) > 10


@pytest.mark.parametrize("backend", ["process"])
def test_run_shows_the_question_and_how_to_answer_it(project: Make) -> None:
    """At a terminal the question is shown, and the printed command answers it when it is copied.

    Where events are written to the same terminal there is no live line among them.
    """
    made = project(ASKING, {"one": [use(("confirm", {"q": "ready?\x1b[2J"})), say("then go")]})
    options = ("--backend", made.backend, "--storage", "my records")
    with typist((*COMMAND, "run", *options, "--job-id", "j", "one", "begin"), made.directory, _env()) as person:
        person.see(r"one asks you \(confirm\): ready\?")
        command = person.see(r"waits for the answer to its question: perstack-orch (.*) ANSWER\r\n")[1]
        assert person.end() == 4
        assert "\x1b[K" not in person.text
        assert "\x1b[2J" not in person.text
    answered = (*COMMAND, *shlex.split(command), "yes")
    ran = subprocess.run(answered, cwd=made.directory, env=_env(), capture_output=True, timeout=120, check=False)
    assert (ran.returncode, b"then go" in ran.stdout) == (0, True), ran.stderr


@pytest.mark.parametrize("backend", ["process"])
def test_stopping_a_job_prints_how_to_finish_it(project: Make) -> None:
    """After Ctrl-C the printed command finishes the job, wherever its records are."""
    made = project(ONE, {"one": [say("slow") | {"delayMs": 3_000}]})
    options = ("--backend", made.backend, "--storage", "my records")
    with typist((*COMMAND, "run", *options, "--job-id", "j", "one", "go"), made.directory, _env()) as person:
        person.see('"type":"startGeneration"')
        person.type("\x03")
        command = person.see(r"job j was stopped; finish it: perstack-orch (.*)\r\n")[1]
        assert person.end() == 130
    resumed = (*COMMAND, *shlex.split(command))
    ran = subprocess.run(resumed, cwd=made.directory, env=_env(), capture_output=True, timeout=120, check=False)
    assert (ran.returncode, b"slow" in ran.stdout) == (0, True), ran.stderr


def test_over_pipes_it_is_plain(project: Make) -> None:
    """Answers come from stdin a line each; no escape, no carriage return, and the end of stdin ends it."""
    made = project(ASKING, {"one": [use(("confirm", {"q": "ready?"})), say("then go")]})
    result = _piped(made, "yes\n", "--job-id", "talk", "one", "begin")
    assert result.returncode == 0, result.stdout + result.stderr
    assert [mark for mark in ("\x1b", "\r") if mark in result.stdout] == []
    assert "one asks you (confirm): ready?\nyour answer to one >\n> yes\none: then go\n" in re.sub(
        r"(?m)^\d+ (?:process|container).*\n(?:  hop.*\n)*", "", result.stdout
    )


def test_an_open_question_left_alone_is_exit_4_and_can_be_resumed(project: Make) -> None:
    """A user who does not answer gets run's code; --continue shows the question again."""
    made = project(ASKING, {"one": [use(("confirm", {"q": "ready?"})), say("then go")]})
    assert _piped(made, "", "--job-id", "talk", "one", "begin").returncode == 4
    again = _piped(made, "yes\n", "--continue-job", "talk", "one")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.index("ready?") < again.stdout.index("one: then go")


def test_at_the_step_limit_more_steps_are_offered(project: Make) -> None:
    """After a yes the job continues with as many again."""
    made = project(ONE, {"one": [use(("listDirectory", {"path": "."})), say("got it")]})
    result = _piped(made, "y\n", "--max-steps", "1", "one", "go")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "one stopped at the limit of 1 step\ncontinue for 1 more? [y/N, or a new query] >\n> y\n" in result.stdout


def test_after_an_error_other_words_are_tried(project: Make) -> None:
    """The error is shown each time; the code is that of the last turn."""
    away = {"error": {"name": "Overloaded", "message": "the model is away"}}
    made = project(ONE, {"one": [away, away]})
    result = _piped(made, "again\n", "one", "go")
    assert result.returncode == 1, result.stdout + result.stderr
    told = "one stopped with an error: the model is away\nnew query? (an empty line ends) >\n"
    assert result.stdout.count(told) == 2


def _reaching(backend: str) -> dict[str, Any]:
    """A reply whose command requests a host that does not exist."""
    call = "import urllib.request as r; r.urlopen('https://host.invalid', timeout=20)"
    return use(
        (
            "exec",
            {
                "command": PYTHON[backend],
                "args": ["-c", call],
                "env": {},
                "cwd": "/workspace",
                "stdout": True,
                "stderr": True,
            },
        )
    )


def test_an_undeclared_host_causes_one_question(project: Make, backend: str) -> None:
    """A tool that declared none causes the question before it reaches the host; after a yes it is not refused again."""
    tried = _reaching(backend)
    made = project(ONE, {"one": [tried, tried, say("tried twice"), tried, say("tried again")]})
    asked = "@perstack/base of one wants to reach host.invalid: allow? [y/N] >\n> {}\n"
    result = _piped(made, "y\nagain\n\n", "one", "go")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("wants to reach") == 1
    before, after = result.stdout.split(asked.format("y"))
    assert "blocked" not in before
    assert "is not declared" not in after
    assert after.count("host.invalid:443 was blocked: host.invalid cannot be resolved") == 3

    refused = _piped(made, "no\n\n", "one", "go")
    assert refused.stdout.count(asked.format("no")) == 1
    assert refused.stdout.count("host.invalid:443 was blocked: host.invalid is not declared") == 2


@pytest.mark.parametrize("backend", ["process"])
def test_the_question_about_a_host_interrupts_the_live_tree(project: Make, backend: str) -> None:
    """The tree stands still until the question is answered, and continues below the answer."""
    made = project(ONE, {"one": [_reaching(backend), say("tried")]})
    with _sitting(made, "one", "go") as person:
        person.see("wants to reach host.invalid: allow.* >")
        person.type("y\n")
        person.see("allowed for this job; .*allowedDomains")
        person.see("one: tried")
        person.see("what next.* > ")
        person.type("\n")
        assert person.end() == 0


@pytest.mark.parametrize("backend", ["process"])
def test_ctrl_c_stops_the_turn_and_another_the_conversation(project: Make) -> None:
    """After the first the job can be continued from the prompt; at the prompt the next one quits with 130."""
    made = project(ONE, {"one": [say("slow") | {"delayMs": 3_000}, say("then")]})
    with _sitting(made, "--job-id", "talk", "one", "go") as person:
        person.see("calling the model")
        person.type("\x03")
        person.see("continue with.* > ")
        assert _status(made, "talk") == "cancelled"
        person.type("more\n")
        person.see("one: slow")
        person.see("one: then")
        person.see("what next.* > ")
        assert person.end("\x03") == 130


@pytest.mark.parametrize(("command", "sign"), [("run", '"type":"callTools"'), ("start", "calling exec")])
def test_a_terminal_that_goes_away_takes_the_job_along(project: Make, backend: str, command: str, sign: str) -> None:
    """No user is left who could stop it: the Sandbox is removed, its tools with it, and the job can be resumed."""
    sleep = {"command": "sleep", "args": ["4711"], "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    made = project(ONE, {"one": [use(("exec", sleep)), say("done")]})
    arguments = (*COMMAND, command, "--backend", backend, "--job-id", "gone", "one", "go")
    with typist(arguments, made.directory, _env()) as person:
        person.see(sign)
        assert person.hang_up() == 129
    assert _status(made, "gone") == "cancelled"
    assert [number for number, said in command_lines() if said == b"sleep\x004711\x00"] == []


@pytest.mark.parametrize("backend", ["process"])
def test_ctrl_c_twice_quits(project: Make) -> None:
    """The second comes while the first still stops the turn, or right after."""
    made = project(ONE, {"one": [say("slow") | {"delayMs": 60_000}]})
    with _sitting(made, "--job-id", "talk", "one", "go") as person:
        person.see("calling the model")
        person.type("\x03")
        person.see("stopping")
        person.type("\x03")
        assert person.end() == 130
    assert _status(made, "talk") == "cancelled"
