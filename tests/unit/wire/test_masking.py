"""Known secrets are found in every form in which ordinary programs write them."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.errors import PackageError
from orchestrator.wire.masking import MARK, StreamMasker, hide, hide_in_errors, mask
from orchestrator.wire.message import TextPart

SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=40).filter(
    lambda text: len(set(text)) > 3 and not text.isalpha() and not text.isspace() and text not in MARK
)
AROUND = st.text("abcdefgh {}:\\/", max_size=20)


@given(secret=SECRETS, before=AROUND, after=AROUND)
def test_a_secret_in_a_record_is_masked(secret: str, before: str, after: str) -> None:
    """A value in a JSON document is replaced, and the document stays valid JSON."""
    part = TextPart(id="p", text=f"{before}{secret}{after}")
    masked = mask([secret])(part.to_json())
    assert secret not in json.loads(masked)["text"]
    assert MARK in json.loads(masked)["text"]


@given(secret=SECRETS, before=AROUND, after=AROUND)
def test_a_secret_in_json_inside_a_record_is_masked(secret: str, before: str, after: str) -> None:
    """A value in JSON that is text of a JSON record is replaced; both documents stay valid."""
    inner = json.dumps({"said": f"{before}{secret}{after}"})
    # Text that happens to equal the value is replaced too.
    assume(secret not in inner.replace(json.dumps(secret)[1:-1], "", 1))
    masked = mask([secret])(TextPart(id="p", text=inner).to_json())
    assert secret not in json.loads(json.loads(masked)["text"])["said"]


@given(secret=SECRETS, before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_a_secret_in_base64_is_masked(secret: str, before: bytes, after: bytes) -> None:
    """A value is found at any offset: the rest of the encoded text does not decode to it."""
    encoded = base64.b64encode(before + secret.encode() + after)
    masked = mask([secret])(b"data: " + encoded)
    assert MARK.encode() in masked
    assert encoded not in masked


@given(text=st.text(max_size=60))
def test_text_without_secrets_is_untouched(text: str) -> None:
    """Text without secrets is unchanged, white space included."""
    data = json.dumps({"a": text}, indent=3).encode()
    assert mask(["0123456789-secret"])(data) is data


def test_a_number_is_not_broken() -> None:
    """A value of digits in the middle of a number is not replaced, so the record stays readable."""
    line = b'{"timestamp":1795478923523,"text":"code 478923"}'
    assert json.loads(mask(["478923"])(line)) == {"timestamp": 1795478923523, "text": "code [masked]"}


@pytest.mark.parametrize("word", ["completed", "stepNumber", "startRun", "short", "", "textPart", "proceeding"])
def test_words_of_the_wire_are_no_secrets(word: str) -> None:
    """Words of the wire format and very short values are not replaced, so records stay readable."""
    line = b'{"type":"startRun","status":"completed","stepNumber":1,"x":"short textPart proceeding"}'
    assert mask([word])(line) == line


def test_the_longer_of_two_secrets_goes_first() -> None:
    """If one value is part of another, no part of the longer one remains."""
    assert mask(["secret-1", "secret-1-and-more"])(b"x secret-1-and-more y") == b"x [masked] y"


def test_keys_and_logs_are_masked_too() -> None:
    """Names in a document and text that is not JSON are masked too."""
    masked = mask(["hunter2!"])
    assert masked(b'{"hunter2!":1}') == b'{"[masked]":1}'
    assert masked(b"\xff hunter2! \xfe") == b"\xff [masked] \xfe"


@pytest.mark.parametrize("writer", ["<&>", "'+&<"])
def test_writers_that_escape_for_html(writer: str) -> None:
    """A value with the characters that Go (three) or .NET (five, in capitals) also escapes is masked."""
    secret = f"pass{writer}word"
    capitals = "+" in writer
    escaped = "".join(f"\\u{ord(c):04{'X' if capitals else 'x'}}" if c in writer else c for c in secret)
    assert mask([secret])(f'{{"said":"{escaped}"}}'.encode()) == b'{"said":"[masked]"}'
    assert mask([secret])(b"text " + escaped.encode()) == b"text [masked]"


@given(secret=SECRETS)
def test_a_secret_in_a_url_is_masked(secret: str) -> None:
    """A value in the query of a URL is masked, since HTTP clients put the URL into errors."""
    for encoded in (quote(secret, safe=""), quote_plus(secret)):
        assert encoded not in mask([secret])(f"GET https://h/?key={encoded} failed".encode()).decode()


def test_lines_of_a_value_of_several_are_masked_each() -> None:
    """Each line of a multi-line value is masked, since printed keys are read line by line."""
    key = "-----BEGIN KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\nshort\n-----END KEY-----\n"
    masked = mask([key])
    assert masked(b"out: MIGHAgEAMBMGByqGSM49") == b"out: [masked]"
    assert masked(b"-----BEGIN KEY----- short") == b"-----BEGIN KEY----- short"
    assert masked(json.dumps({"k": key}).encode()) == b'{"k":"[masked]"}'


@given(
    secrets=st.lists(SECRETS, min_size=1, max_size=3),
    words=st.lists(st.one_of(AROUND, st.integers(0, 2)), max_size=6),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=30),
)
def test_a_secret_that_comes_in_pieces_is_masked(secrets: list[str], words: list[str | int], cuts: list[int]) -> None:
    """However a text is cut, no value passes, unless the surrounding text happens to form one."""
    text = "".join(secrets[word % len(secrets)] if isinstance(word, int) else word for word in words)
    flow, told, rest = StreamMasker(secrets), "", text
    for size in cuts:
        told, rest = told + flow.feed(rest[:size]), rest[size:]
    told += flow.feed(rest) + flow.rest()
    around = "".join(word for word in words if isinstance(word, str))
    for secret in secrets:
        assert secret not in told or secret in MARK or secret in around


_ALIKE = ["acme-prod", "acme-prod-9f3c77d2e1", "prod-9f3c", "-acme-pro", "e1-acme"]


@given(
    words=st.lists(st.sampled_from(_ALIKE) | st.sampled_from(["acme-", "prod", "-9f3", " ", "e1", "x"]), max_size=8),
    cuts=st.lists(st.integers(1, 9), max_size=40),
)
def test_pieces_are_masked_as_the_whole_is(words: list[str], cuts: list[int]) -> None:
    """Pieces are masked like the whole text, even if values overlap or contain each other."""
    text = "".join(words)
    flow, told, rest = StreamMasker(_ALIKE), "", text
    for size in cuts:
        told, rest = told + flow.feed(rest[:size]), rest[size:]
    assert told + flow.feed(rest) + flow.rest() == hide(_ALIKE)(text)


def test_what_cannot_be_part_of_a_secret_does_not_wait() -> None:
    """Only a possible start of a value is held back; at the end everything is returned."""
    flow = StreamMasker(["canary-1"])
    assert [flow.feed(text) for text in ("hello ca", "nary-", "2 and can", "ary-1!")] == [
        "hello ", "", "canary-2 and ", "[masked]!",
    ]  # fmt: skip
    assert (flow.feed("can"), flow.rest(), flow.rest()) == ("", "can", "")


def test_an_error_that_leaves_the_block_is_masked() -> None:
    """The error keeps its type and its text is masked; an error without a secret passes unchanged, with its cause."""
    told = "skill said canary-1"
    with pytest.raises(PackageError, match=r"^skill said \[masked\]$") as error, hide_in_errors(["canary-1"]):
        raise PackageError(told) from ValueError(told)
    assert error.value.__cause__ is None
    clean = PackageError("nothing here")
    with pytest.raises(PackageError) as same, hide_in_errors(["canary-1"]):
        raise clean
    assert same.value is clean
