"""What reaches the user's files from a copy: decided alone from what was copied in, what is inside and what is here."""

import posixpath
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.workspace.copy_plan import (
    SUFFIX,
    CopyPlan,
    Delete,
    Write,
    changed_paths,
    is_safe_link,
    plan_copy_back,
)
from orchestrator.workspace.guarded_names import is_guarded, spelling_key
from orchestrator.workspace.manifest import Entry, Kind, parent_of, same

DIRECTORY = Entry(kind=Kind.DIRECTORY, mode=0o755)


def file(content: str, mode: int = 0o644) -> Entry:
    """A file; its content stands for its digest."""
    return Entry(kind=Kind.FILE, mode=mode, size=len(content), digest=content)


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(kind=Kind.LINK, target=target.encode())


def planned(
    before: Mapping[str, Entry],
    inside: Mapping[str, Entry],
    host: Mapping[str, Entry] | None = None,
    *,
    folds: bool = False,
) -> CopyPlan:
    """The plan; without `host` the user changed nothing."""
    return plan_copy_back(before, inside, before if host is None else host, folds=folds)


def test_nothing_changed_means_nothing_to_do() -> None:
    """Whatever the user changed meanwhile."""
    before = {"a": file("1"), "d": DIRECTORY, "d/b": file("2"), "s": link("a")}
    assert planned(before, before, {"a": file("9"), "new": file("x")}) == CopyPlan()


def test_changes_reach_files_that_nobody_else_changed() -> None:
    """New, changed and deleted files, a mode, a new directory."""
    before = {"a": file("1"), "b": file("1"), "gone": file("1"), "old": DIRECTORY, "old/x": file("1"), "run": file("1")}
    inside = {"a": file("2"), "b": file("1"), "new": DIRECTORY, "new/n": file("3"), "run": file("1", 0o755)}
    assert planned(before, inside) == CopyPlan(
        deletions=(Delete("old/x", file("1")), Delete("old", DIRECTORY), Delete("gone", file("1"))),
        directories=(("new", 0o755),),
        writes=(
            Write("a", "a", file("2"), file("1")),
            Write("new/n", "new/n", file("3")),
            Write("run", "run", file("1", 0o755), file("1")),
        ),
    )


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (None, Write("a", "a", file("job"))),
        (file("job"), None),
        (file("user"), Write("a.from-sandbox", "a", file("job"))),
        (DIRECTORY, Write("a.from-sandbox", "a", file("job"))),
        (link("x"), Write("a.from-sandbox", "a", file("job"))),
        (file("before", 0o755), Write("a.from-sandbox", "a", file("job"))),
        (Entry(kind=Kind.FILE, size=6), Write("a.from-sandbox", "a", file("job"))),
    ],
)
def test_a_file_that_both_changed(here: Entry | None, expected: Write | None) -> None:
    """The user's stays, and the job's goes next to it, unless they are the same; without a digest they differ."""
    plan = planned({"a": file("before")}, {"a": file("job")}, {} if here is None else {"a": here})
    assert plan.writes == (() if expected is None else (expected,))
    assert plan.deletions == ()


def test_a_second_try_finds_what_the_first_put_aside() -> None:
    """No second file is made of the same content; of other content one with the next number is."""
    before, inside = {"a": file("1")}, {"a": file("job")}
    assert planned(before, inside, {"a": file("user"), "a.from-sandbox": file("job")}).writes == ()
    other = planned(before, inside, {"a": file("user"), "a.from-sandbox": file("other")})
    assert other.writes == (Write("a.from-sandbox-2", "a", file("job")),)


def test_a_file_of_the_job_that_has_the_name_of_another_ones_other_name() -> None:
    """Both are written, under two names."""
    inside = {"a": file("1"), "a.from-sandbox": file("2")}
    plan = planned({}, inside, {"a": file("user")})
    assert plan.writes == (
        Write("a.from-sandbox", "a", file("1")),
        Write("a.from-sandbox.from-sandbox", "a.from-sandbox", file("2")),
    )


def test_a_changed_file_is_not_deleted() -> None:
    """The user's change is worth more than the job's deletion."""
    plan = planned({"a": file("1")}, {}, {"a": file("user")})
    assert (plan.deletions, len(plan.notes)) == ((), 1)


def test_a_directory_is_not_deleted_with_a_file_of_the_user() -> None:
    """Only what was copied in goes."""
    before = {"d": DIRECTORY, "d/x": file("1")}
    assert planned(before, {}, before | {"d/mine": file("u")}).deletions == (Delete("d/x", file("1")),)


def test_a_directory_that_became_a_file() -> None:
    """With a file of the user in it, the job's file goes next to it."""
    before = {"d": DIRECTORY, "d/x": file("1")}
    assert planned(before, {"d": file("job")}).writes == (Write("d", "d", file("job")),)
    other = planned(before, {"d": file("job")}, before | {"d/mine": file("u")})
    assert other.writes == (Write("d.from-sandbox", "d", file("job")),)


@pytest.mark.parametrize("here", [link("/etc"), file("user")])
def test_what_is_below_a_replaced_directory_goes_beside_it(here: Entry) -> None:
    """The user put a link in place of a directory that the job wrote to: nothing goes through it."""
    before = {"d": DIRECTORY, "d/x": file("1"), "d/kept": file("1")}
    plan = planned(before, before | {"d/x": file("job")}, {"d": here})
    assert plan.directories == (("d.from-sandbox", 0o755),)
    assert plan.writes == (Write("d.from-sandbox/x", "d/x", file("job")),)


def test_names_that_the_file_system_takes_for_one() -> None:
    """The second gets another name; where the system distinguishes them, both have their places."""
    before, inside = (
        {"a": file("1")},
        {"a": file("1"), "A": file("2"), "D": DIRECTORY, "d": DIRECTORY, "d/x": file("3")},
    )
    plan = planned(before, inside, folds=True)
    assert [write.path for write in plan.writes] == ["A.from-sandbox", "d.from-sandbox/x"]
    assert [write.path for write in planned(before, inside).writes] == ["A", "d/x"]


def test_a_file_that_changed_the_case_of_its_name() -> None:
    """The old name goes before the new one is made: to such a file system they are one."""
    plan = planned({"readme": file("1")}, {"README": file("1")}, folds=True)
    assert (plan.deletions, plan.writes) == ((Delete("readme", file("1")),), (Write("README", "README", file("1")),))


def test_guarded_names_and_what_is_no_file_stay_out() -> None:
    """What has a guarded name gets another one; pipes and links out of the workspace do not go."""
    inside = {
        ".ENV": file("x"),
        "Perstack.toml": file("y"),
        "pipe": Entry(kind=Kind.OTHER),
        "out": link("../x"),
        "sub": DIRECTORY,
        "sub/.env": file("z"),
    }
    plan = planned({}, inside, {"perstack.toml": file("mine")})
    assert [write.path for write in plan.writes] == ["ENV.from-sandbox", "Perstack.toml.from-sandbox", "sub/.env"]
    assert (plan.links, len(plan.notes)) == ((), 4)


@pytest.mark.parametrize(
    ("path", "target", "safe"),
    [
        ("a", "b", True),
        ("a", "d/./b", True),
        ("d/a", "../b", True),
        ("d/a", "../../b", False),
        ("a", "../b", False),
        ("a", "/b", False),
        ("a", "", False),
        ("a", ".", True),
        ("d/a", "b/../../b", False),
        ("d/e/a", "b/../x", False),
        ("d/e/a", "../../x", True),
        ("d/a", "..", True),
    ],
)
def test_links_lead_to_the_workspace(path: str, target: str, *, safe: bool) -> None:
    """`..` counts at the beginning only."""
    assert is_safe_link(path, target.encode()) is safe


NAMES = ["a", "A", "b", ".env", "a.from-sandbox"]
CONTENTS = st.one_of(
    st.builds(file, st.sampled_from("123"), st.sampled_from([0o644, 0o755])),
    st.builds(link, st.sampled_from(["a", "b", "../x", "/x"])),
    st.just(Entry(kind=Kind.OTHER)),
)


@st.composite
def trees(draw: st.DrawFn, level: int = 0) -> dict[str, Entry]:
    """A tree of few names, so that trees have much in common."""
    found: dict[str, Entry] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4)):
        if level < 2 and draw(st.booleans()):
            found[name] = DIRECTORY
            found |= {f"{name}/{path}": entry for path, entry in draw(trees(level + 1)).items()}
        else:
            found[name] = draw(CONTENTS)
    return found


def applied(plan: CopyPlan, host: Mapping[str, Entry], *, folds: bool) -> dict[str, Entry]:
    """Carry out a plan as a file system would; each step must be possible."""
    here = dict(host)
    for deletion in plan.deletions:
        assert same(here[deletion.path], deletion.expected)
        assert not any(path.startswith(f"{deletion.path}/") for path in here)
        del here[deletion.path]
    made = [(path, Entry(kind=Kind.DIRECTORY, mode=mode), None) for path, mode in plan.directories]
    wrote = [(write.path, write.entry.with_(mode=write.mode), write.expected) for write in plan.writes]
    for path, entry, expected in (*made, *wrote, *plan.links):
        above = parent_of(path)
        assert not above or here[above].kind is Kind.DIRECTORY, path
        if expected is None:
            keys = {spelling_key(other) if folds else other for other in here}
            assert (spelling_key(path) if folds else path) not in keys, path
        else:
            assert same(here[path], expected)
        here[path] = entry
    return here


def without_folded(tree: Mapping[str, Entry]) -> dict[str, Entry]:
    """What of a tree a file system holds that takes spellings for one."""
    found: dict[str, Entry] = {}
    keys: set[str] = set()
    for path in sorted(tree, key=lambda path: path.split("/")):
        if spelling_key(path) not in keys and (not parent_of(path) or parent_of(path) in found):
            found[path] = tree[path]
            keys.add(spelling_key(path))
    return found


def _is_left_out(path: str, entry: Entry) -> bool:
    return entry.kind is Kind.OTHER or is_guarded(path.partition("/")[0]) or SUFFIX in path


@given(trees(), trees(), trees(), st.booleans(), st.booleans())
def test_every_plan_can_be_carried_out_and_loses_nothing(
    before: dict[str, Entry],
    inside: dict[str, Entry],
    host: dict[str, Entry],
    folds: bool,  # noqa: FBT001 - an example has it by position
    untouched: bool,  # noqa: FBT001 - the same
) -> None:
    """Nothing of the user's is lost, all that the job wrote is somewhere, and a second time changes nothing."""
    if folds:
        before, host = without_folded(before), without_folded(host)
    if untouched:
        host = before
    # What is never copied in, and what an earlier job left under another name: a second time may make that again.
    left_out = [path for path, entry in before.items() if _is_left_out(path, entry)]
    before = {path: entry for path, entry in before.items() if not path.startswith(tuple(left_out))}
    plan = plan_copy_back(before, inside, host, folds=folds)
    after = applied(plan, host, folds=folds)
    for path, entry in host.items():
        # What the user has stays, unless the job changed what it had been given.
        assert same(after.get(path), entry) or (same(before.get(path), entry) and path in changed_paths(before, inside))
    contents = [entry for entry in after.values() if entry.kind is Kind.FILE]
    for path in changed_paths(before, inside) & inside.keys():
        if inside[path].kind is Kind.FILE:
            assert any(same(inside[path], other) for other in contents), path
    for path in (*(write.path for write in plan.writes), *(path for path, _, _ in plan.links)):
        assert "/" in path or not is_guarded(posixpath.basename(path))
    again = plan_copy_back(before, inside, after, folds=folds)
    assert (again.deletions, again.writes, again.links) == ((), (), ())
