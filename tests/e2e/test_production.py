"""Jobs that the cluster works, submitted and watched from a laptop that has no other rights."""

import json
import signal
from pathlib import Path

import pytest

from orchestrator.cluster.client import claim_of
from orchestrator.wire.event import CompleteRun, DockerContainerStatus
from tests.support import production
from tests.support.cluster_jobs import SLOW, command
from tests.support.production import (
    RUN,
    Make,
    events_of,
    is_whole,
    left,
    nothing_left_but,
    objects,
    read_until,
    volume_of,
)
from tests.support.project import ONE, TEAM, Project, Result, ask, ended, say, use

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm]


def told_by(result: Result) -> list[tuple[str, str | None]]:
    """Types and Experts of all events, in order."""
    return [(event["type"], event.get("expertKey", event.get("expertName"))) for event in events_of(result)]


@pytest.mark.docker
async def test_a_job_in_the_cluster_has_the_events_that_it_has_on_docker(laptop: Make, tmp_path: Path) -> None:
    """The same types, Experts and order; each Run has a separate Job; the log is on the user's claim."""
    replies = {"boss": [use(ask("left", "go")), say("done")], "left": [use(command("print(1)")), say("left")]}
    here = await Project.make(tmp_path / "docker", "docker", TEAM, replies).run("boss", "go", "--verbose")
    away = await laptop(TEAM, replies).command(*RUN, "--user", "u1", "--job-id", "same", "--verbose", "boss", "go")
    assert (here.code, away.code) == (0, 0), away.stderr
    assert told_by(away) == told_by(here)
    assert is_whole(events_of(away))
    assert len({event.service for event in away.of(DockerContainerStatus)}) == 3
    assert "receipt" in away.stderr
    logs = sorted((volume_of("u1") / "records" / "jobs" / "same" / "runs").rglob("events.jsonl"))
    kept = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    assert sorted(kept, key=lambda event: event["position"]) == events_of(away)


async def test_no_user_sees_what_another_users_expert_wrote(laptop: Make) -> None:
    """u1's Run writes a file; u2's lists an empty workspace; each finds their own claim again."""
    made = laptop(
        ONE,
        {
            "one": [
                use(("writeTextFile", {"path": "mine", "text": "x"})),
                use(("listDirectory", {"path": "."})),
                say("ok"),
            ]
        },
    )
    for user in ("u1", "u1", "u2"):
        result = await made.command(*RUN, "--user", user, "one", "go")
        assert result.code == 0, result.stderr
    look = laptop(ONE, {"one": [use(command("import os; print(sorted(os.listdir('.')))")), say("ok")]})
    result = await look.command(*RUN, "--user", "u3", "one", "go")
    assert result.code == 0, result.stderr
    assert b"mine" not in result.stdout
    assert [(volume_of(user) / "ws" / "mine").exists() for user in ("u1", "u2", "u3")] == [True, True, False]


async def test_a_laptop_that_dies_misses_nothing(laptop: Make) -> None:
    """The command is killed while a tool works; `watch` continues from its position, and repeats nothing."""
    made = laptop(ONE, SLOW)
    process = await made.start(*RUN, "--job-id", "cut", "one", "go")
    shown = await read_until(process, "callTools")
    process.kill()
    await process.wait()
    rest = await made.command("watch", "--after", str(shown[-1]["position"]), "cut")
    assert rest.code == 0, rest.stderr
    assert is_whole([*shown, *events_of(rest)])
    again = await made.command("watch", "cut")
    assert events_of(again) == [*shown, *events_of(rest)]
    assert (again.code, [event.text for event in again.of(CompleteRun)]) == (0, ["all done"])


async def test_ctrl_c_leaves_the_job_to_the_cluster_and_reports_it(laptop: Make) -> None:
    """Exit 130, and two commands: one that shows the job again, and one that ends it; both work."""
    made = laptop(ONE, SLOW)
    process = await made.start(*RUN, "--user", "u1", "--job-id", "left", "one", "go")
    await read_until(process, "callTools")
    process.send_signal(signal.SIGINT)
    result = await ended(process)
    assert result.code == 130
    assert "perstack-orch watch --user u1 left" in result.stderr
    assert "perstack-orch cancel --user u1 left" in result.stderr
    watching = await made.start("watch", "--user", "u1", "left")
    cancelled = await made.command("cancel", "--user", "u1", "left")
    assert cancelled.code == 0, cancelled.stderr
    watched = await ended(watching)
    assert watched.code == 4, watched.stderr
    assert "perstack-orch resume --backend kubernetes --user u1 left" in watched.stderr
    resumed = await made.command("resume", "--backend", "kubernetes", "--user", "u1", "left")
    assert resumed.code == 0, resumed.stderr
    assert [event.text for event in resumed.of(CompleteRun)] == ["all done"]
    whole = await made.command("watch", "--user", "u1", "left")
    assert is_whole(events_of(whole))


async def test_a_question_is_answered_by_another_coordinator(laptop: Make) -> None:
    """Exit 4 with a command that answers; it shows what is new, and the job completes."""
    toml = """
    [experts.one]
    instruction = "Ask."
    [experts.one.skills.human]
    type = "interactiveSkill"
    [experts.one.skills.human.tools.askHuman]
    description = "Asks."
    inputJsonSchema = '{"type": "object", "properties": {"question": {"type": "string"}}}'
    """
    made = laptop(toml, {"one": [use(("askHuman", {"question": "Which?"})), say("thanks")]})
    asked = await made.command(*RUN, "--user", "asked", "--job-id", "asked", "one", "go")
    assert asked.code == 4, asked.stderr
    answer = "perstack-orch run --user asked --backend kubernetes --continue-job asked -i one ANSWER"
    assert answer in asked.stderr
    answered = await made.command(*answer.replace("ANSWER", "this").split()[1:])
    assert answered.code == 0, answered.stderr
    assert [event.text for event in answered.of(CompleteRun)] == ["thanks"]
    assert is_whole([*events_of(asked), *events_of(answered)])


async def test_prune_leaves_nothing_but_claims(laptop: Make) -> None:
    """Of all kinds that can be listed, only users' claims have our label; the records are still there."""
    made = laptop(ONE, {"one": [say("done")]})
    result = await made.command(*RUN, "--user", "tidy", "--job-id", "tidy", "one", "go")
    assert result.code == 0, result.stderr
    assert "secret" in " ".join(await left("perstack.ai/job=tidy"))
    # The command has printed all events while the coordinator is still shutting down.
    its_job = ("job", "--selector=perstack.ai/job=tidy")
    await objects().kubectl("wait", "--for=condition=complete", *its_job, "--timeout=60s")
    pruned = await made.command("prune", "--backend", "kubernetes")
    assert pruned.code == 0, pruned.stderr
    assert [line for line in pruned.stdout.decode().splitlines() if line.startswith("tidy-")]
    claims = [each for each in await left() if each.startswith("persistentvolumeclaim/")]
    assert f"persistentvolumeclaim/{claim_of('tidy')}" in claims
    await nothing_left_but(*claims)
    again = await made.command("watch", "--user", "tidy", "tidy")
    assert (again.code, events_of(again)) == (0, events_of(result)), again.stderr


async def test_records_are_read_where_they_are(laptop: Make) -> None:
    """`log` and `record` write the same as next to the records; so are their errors and exit codes."""
    made = laptop(ONE, {"one": [say("done")]})
    place = ("--backend", "kubernetes", "--user", "read")
    result = await made.command("run", *place, "--job-id", "read", "one", "go")
    assert result.code == 0, result.stderr
    log = await made.command("log", *place, "--job", "read", "--json", "--take", "0")
    assert log.code == 0, log.stderr
    assert (log.code, json.loads(log.stdout)["events"]) == (0, events_of(result)), log.stderr
    record = await made.command("record", *place, "--output", "script.json", "read")
    assert record.code == 0, record.stderr
    assert json.loads((made.directory / "script.json").read_text()) == {"one": [{"text": "done"}]}
    unknown = await made.command("record", *place, "unknown")
    assert (unknown.code, unknown.stdout) == (2, b"")
    assert "job 'unknown' is not in the store" in unknown.stderr
    stranger = await made.command("log", "--backend", "kubernetes", "--user", "stranger")
    assert (stranger.code, stranger.stdout) == (2, b"")
    assert "no job of user 'stranger' ran" in stranger.stderr


async def test_what_cannot_be_worked_is_reported_once_and_not_begun_again(laptop: Make) -> None:
    """A coordinator that finds an error in the job ends with 2, and the laptop prints its sentence."""
    made = laptop(ONE, {"one": [say("never")]})
    result = await made.command(*RUN, "--user", "wrong", "--allow-domain", "nothing=example.com", "one", "go")
    assert (result.code, result.stdout) == (2, b""), result.stderr
    assert "--allow-domain names no skill of this job: nothing" in result.stderr


async def test_a_claim_of_another_owner_is_not_used(laptop: Make) -> None:
    """A claim with the name of a user's claim and without their id is refused before anything is made."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_of("mallory"),
            "labels": {"perstack.ai/part": "workspace"},
            "annotations": {"perstack.ai/user": "another"},
        },
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    await objects().create(claim)
    result = await laptop(ONE, {"one": [say("never")]}).command(*RUN, "--user", "mallory", "one", "go")
    assert (result.code, result.stdout) == (2, b"")
    assert "belongs to 'another', by its annotation" in result.stderr


@pytest.mark.behaviour("B1")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--workspace", "w"), "in a cluster the workspace is on the claim"),
        (("--claim", "c"), "--claim needs --coordinator local"),
        (("--continue",), "--continue is not usable"),
        (("--user", ""), "give the id of a user"),
        (("--installation", "other"), "the installation other is not in the namespace"),
    ],
)
async def test_options_that_do_not_fit_a_cluster_are_refused(
    laptop: Make, arguments: tuple[str, ...], words: str
) -> None:
    """One sentence names the option, and nothing is made."""
    result = await laptop(ONE, {"one": [say("never")]}).command(*RUN, *arguments, "one", "go")
    assert result.code in {2, 3}
    assert result.stdout == b""
    assert words in result.stderr


async def test_a_missing_installation_is_reported(laptop: Make) -> None:
    """If the chart is not installed, the error names the command that installs it."""
    made = laptop(ONE, {"one": [say("never")]})
    result = await made.command(
        *RUN, "--namespace", "default", "one", "go", env={"KUBECONFIG": str(production.kubeconfig())}
    )
    assert (result.code, result.stdout) == (3, b"")
    assert "perstack-orch is not in the namespace default: install its chart there" in result.stderr
