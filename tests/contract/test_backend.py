"""Every backend of ours passes the contract suite that ships."""

import pytest

from orchestrator.testing.backend_contract import BackendContract, ProcessBackendContract
from tests.support.backend_kinds import docker_place, fake_place, kubernetes_place, process_place


@pytest.mark.docker
class TestDocker(ProcessBackendContract):
    """Containers of a Docker engine."""

    make = staticmethod(docker_place)


@pytest.mark.kubernetes
class TestKubernetes(ProcessBackendContract):
    """Jobs of a Kubernetes cluster."""

    make = staticmethod(kubernetes_place)


class TestProcess(ProcessBackendContract):
    """Processes of this machine."""

    make = staticmethod(process_place)


class TestFake(BackendContract):
    """Tasks of this process; a task has no signals, environment or children."""

    make = staticmethod(fake_place)
