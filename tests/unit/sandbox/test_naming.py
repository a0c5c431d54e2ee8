import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.sandbox import naming

DNS_1123 = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
JOBS = st.one_of(
    st.text(min_size=1, max_size=80),
    st.from_regex(r"[a-z0-9-]{1,70}", fullmatch=True),
    st.from_regex(r"[a-z]{1,5}-[0-9a-f]{16}", fullmatch=True),
)


def test_a_plain_job_gives_its_own_name() -> None:
    """A generated id is readable in `docker ps`."""
    assert naming.sandbox_name("k3jx0qv8a7ydpm2w5c6rtnbz", 7, "here") == "k3jx0qv8a7ydpm2w5c6rtnbz-s7"


def test_a_chosen_id_differs_from_that_of_another_store() -> None:
    """Equal job ids of two users get different names on one engine."""
    assert naming.sandbox_name("nightly", 1, "here") == "nightly-fcec91-s1"
    assert naming.sandbox_name("nightly", 1, "there") != naming.sandbox_name("nightly", 1, "here")


def test_an_odd_job_keeps_a_readable_beginning() -> None:
    """Invalid characters are replaced, and a digest distinguishes the name from similar ones."""
    assert naming.sandbox_name("My_Job", 1, "here") == "my-job-1ce4a87065fe9c56-fcec91-s1"


@given(job=JOBS, ordinal=st.integers(min_value=1, max_value=999_999_999), instance=st.text())
def test_every_name_is_a_dns_label(job: str, ordinal: int, instance: str) -> None:
    """For any job id, the name is valid in Docker and Kubernetes."""
    assert DNS_1123.fullmatch(naming.sandbox_name(job, ordinal, instance))


@given(one=JOBS, other=JOBS, ordinals=st.tuples(st.integers(1, 99), st.integers(1, 99)))
def test_no_two_pairs_share_a_name(one: str, other: str, ordinals: tuple[int, int]) -> None:
    """In one store, a name belongs to one job and ordinal."""
    assume((one, ordinals[0]) != (other, ordinals[1]))
    assert naming.sandbox_name(one, ordinals[0], "i") != naming.sandbox_name(other, ordinals[1], "i")


def test_a_job_cannot_take_the_name_of_a_digested_one() -> None:
    """An id that equals another's digested form is digested again."""
    digested = "my-job-1ce4a87065fe9c56"
    assert naming.sandbox_name(digested, 1, "i") != naming.sandbox_name("My_Job", 1, "i")


def test_labels_name_job_sandbox_instance_and_deadline() -> None:
    """The labels hold all that is needed to find and judge a Sandbox."""
    assert naming.labels("j", sandbox="j-s1", instance="host-1", deadline=1_800_000_000) == {
        "app.kubernetes.io/managed-by": "perstack-orch",
        "perstack.ai/job": "j",
        "perstack.ai/sandbox": "j-s1",
        "perstack.ai/instance": "host-1",
        "perstack.ai/deadline": "1800000000",
    }


def test_a_jobs_labels_are_a_part_of_each_of_its_sandboxes() -> None:
    """All Sandboxes of a job carry the labels that it is pruned by."""
    one = naming.labels("My_Job", sandbox="x", instance="i", deadline=1)
    assert naming.job_labels("My_Job").items() <= one.items()


@pytest.mark.parametrize(
    "name",
    ["a", "a:1", "perstack-orch-runtime:0.1.0", "localhost:5000/a/b_c:latest", "Registry.Example/x", "a__b/c.d:v-1",
     "sha256:" + "0" * 64, "a@sha256:" + "0" * 64, "ghcr.io/a/b:1@sha256:" + "f" * 64],
)  # fmt: skip
def test_names_of_images(name: str) -> None:
    """Registry, port, tag and digest are allowed, as in engines."""
    assert naming.is_image_name(name)


@pytest.mark.behaviour("G17")
@pytest.mark.parametrize(
    "name",
    ["", "..", "../a", "a/../b", "/a", "a/", "a//b", "-a", "a b", "a\n", "a?b=c", "a#b", "a%2fb", "a:", "a@b", "\u00e4",
     "a" * 513],
)  # fmt: skip
def test_other_names_are_not_images(name: str) -> None:
    """Nothing that could be another path, or more than a path, is accepted."""
    assert not naming.is_image_name(name)
