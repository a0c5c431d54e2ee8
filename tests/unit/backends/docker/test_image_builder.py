"""What a build sends, and what its output means."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.backends.docker.image_builder import BuildOutput, ImageBuild, Step, tagged
from orchestrator.images.context import BuildContext

BUILD = ImageBuild(BuildContext({}), ("a:1", "b:1"), "python:3", labels={"k": "v"}, arguments={"X": "1"})


def test_the_query_has_names_labels_and_arguments() -> None:
    """The base is an argument; containers of steps are removed; further names are given later."""
    query = BUILD.query({})
    assert {name: value for name, value in query.items() if name not in {"labels", "buildargs"}} == {
        "t": "a:1",
        "rm": "1",
        "forcerm": "1",
    }
    assert json.loads(query["labels"]) == {"k": "v"}
    assert json.loads(query["buildargs"]) == {"X": "1", "BASE": "python:3"}


def test_the_steps_get_proxies_that_a_container_reaches() -> None:
    """In both spellings; a proxy on this machine is left out."""
    environ = {
        "https_proxy": "http://proxy.example:3128",
        "HTTP_PROXY": "http://127.0.0.1:3128",
        "NO_PROXY": "localhost,.example",
        "FTP_PROXY": "http://proxy.example:3128",
    }
    assert json.loads(BUILD.query(environ)["buildargs"]) == {
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://proxy.example:3128"),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,.example"),
        "X": "1",
        "BASE": "python:3",
    }


def test_the_output_of_dockers_builder() -> None:
    """Steps, the lines of the step at work, and no image: that of FROM is the base."""
    output = BuildOutput()
    assert output.read("Step 1/3 : FROM ${BASE}\n") == Step(1, 3, "FROM ${BASE}")
    assert output.read(" ---> 9547151a1843\n") is None
    assert output.read("Step 2/3 : RUN true\n") == Step(2, 3, "RUN true")
    output.read(" ---> Running in 0d22f1975c80\n")
    output.read("\x1b[91mERROR: no\n\x1b[0m")
    output.read("Removing intermediate container 0d22f1975c80\n")
    assert (output.step, list(output.lines), output.image) == (Step(2, 3, "RUN true"), ["ERROR: no"], None)
    output.read("Step 3/3 : RUN false\n")
    assert list(output.lines) == []


def test_the_output_of_podmans_builder() -> None:
    """It writes steps in capitals, and no images."""
    output = BuildOutput()
    assert output.read("STEP 2/3: RUN true\n") == Step(2, 3, "RUN true")
    output.read("one\ntwo\n")
    assert (list(output.lines), output.image) == (["one", "two"], None)


@given(st.lists(st.text()))
def test_any_output_is_read_and_bounded(texts: list[str]) -> None:
    """A step may print anything: few lines are kept, and none is long."""
    output = BuildOutput()
    for text in texts:
        output.read(text)
        output.read(text * 100)
    assert len(output.lines) <= 15
    assert all(len(line) <= 300 for line in output.lines)


def test_the_base_image_is_not_the_builds() -> None:
    """What is removed after a failed build is what its own steps left."""
    output = BuildOutput()
    output.read("Step 1/3 : ARG BASE\n ---> \nStep 2/3 : FROM ${BASE}\n ---> aaaaaaaaaaaa\n")
    assert output.image is None
    output.read("Step 3/3 : RUN true\n ---> Running in cccccccccccc\n ---> bbbbbbbbbbbb\n")
    assert output.image == "bbbbbbbbbbbb"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mine", "mine:latest"),
        ("mine:1", "mine:1"),
        ("registry.example:5000/team/mine", "registry.example:5000/team/mine:latest"),
        ("registry.example:5000/team/mine:1", "registry.example:5000/team/mine:1"),
    ],
)
def test_a_name_without_a_tag_gets_the_usual_one(name: str, expected: str) -> None:
    """The colon of a registry's port begins no tag."""
    assert tagged(name) == expected
