"""What a run could leave on a machine."""

from pathlib import Path

from orchestrator.plan.make_job import instance_of
from orchestrator.pool.state_directories import state_prefix
from tests.support import cluster, engine, production
from tests.support.processes import command_lines


def left_behind(root: Path, *, engine_answers: bool, in_cluster: bool) -> set[str]:
    """List what is left of jobs and errands whose store is below `root`: containers, runtimes, directories, objects.

    A cluster is slow to answer, so this looks only for jobs that ran there.
    """
    stores = {jobs.parent for jobs in root.rglob("jobs") if jobs.is_dir()}
    stores |= {file.with_name("perstack") for file in root.rglob("perstack.toml")}
    instances = [instance_of(store) for store in stores]
    prefixes = [f"/tmp/{state_prefix(instance)}" for instance in instances]
    found = {str(path) for path in Path("/tmp").glob("perstack-*") if str(path).startswith(tuple(prefixes))}
    marks = [mark.encode() for mark in (*prefixes, f"{root}/")]
    for process, command in command_lines():
        if b"orchestrator.runtime" in command and any(mark in command for mark in marks):
            found.add(f"process {process}: {command.decode(errors='replace')}")
    if engine_answers:
        found |= {f"volume {name}" for instance in instances for name in engine.volumes(instance)}
        found |= {f"container {name}" for instance in instances for name in engine.containers(instance)}
    return found | (cluster.left() | production.sandboxes_left() if in_cluster else set())
