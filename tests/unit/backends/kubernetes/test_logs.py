import pytest

from orchestrator.backends.kubernetes.logs import Mark, StampedLines, since


def stamped(second: int, nanos: int, text: bytes) -> bytes:
    """Return a line as the kubelet writes it."""
    return b"2026-11-25T17:00:%02d.%09dZ %s\n" % (second, nanos, text)


def test_stamps_are_taken_off_wherever_the_bytes_are_cut() -> None:
    """For any chunks, the lines are the container's own, with all spaces."""
    log = stamped(1, 1, b"a  b") + stamped(1, 2, b"") + stamped(2, 0, b"c")
    for size in range(1, len(log)):
        found = StampedLines(64)
        assert [line for at in range(0, len(log), size) for line in found.feed(log[at : at + size])] == [
            b"a  b",
            b"",
            b"c",
        ]
        assert found.mark == Mark(b"2026-11-25T17:00:02.000000000Z ", 1)


def test_a_log_that_is_opened_again_continues_where_it_was() -> None:
    """Lines before the mark are skipped, and as many with the mark's own stamp as were read."""
    first = StampedLines(64)
    assert first.feed(stamped(1, 1, b"a") + stamped(1, 2, b"b") + stamped(1, 2, b"c")) == [b"a", b"b", b"c"]
    again = StampedLines(64, first.mark)
    log = stamped(1, 1, b"a") + stamped(1, 2, b"b") + stamped(1, 2, b"c") + stamped(1, 2, b"d") + stamped(3, 0, b"e")
    assert again.feed(log) == [b"d", b"e"]
    third = StampedLines(64, again.mark)
    assert third.feed(stamped(3, 0, b"e") + stamped(3, 1, b"f")) == [b"f"]


def test_what_is_no_line_of_the_container_ends_it() -> None:
    """A kubelet writes its own errors into the log (k9s#1399); lines after one are not used."""
    found = StampedLines(64)
    assert found.feed(stamped(1, 1, b"a") + b"failed to create fsnotify watcher: too many open files\n") == [b"a"]
    assert found.fault == "failed to create fsnotify watcher: too many open files"
    assert found.feed(stamped(1, 2, b"b")) == []


def test_a_line_without_its_end_waits() -> None:
    """An incomplete last line is returned at the end."""
    found = StampedLines(64)
    assert found.feed(stamped(1, 1, b"a").rstrip()) == []
    assert found.rest() == [b"a"]


@pytest.mark.parametrize(
    ("mark", "moment"),
    [
        (None, None),
        (Mark(b"2026-11-25T17:00:00.999999999Z ", 1), "2026-11-25T16:59:59Z"),
        (Mark(b"2026-11-25T17:00:00+02:00 ", 1), "2026-11-25T14:59:59Z"),
    ],
)
def test_from_when_it_is_opened_again(mark: Mark | None, moment: str | None) -> None:
    """The log is reopened a second earlier, in whole seconds: the API server takes no others."""
    assert since(mark) == moment
