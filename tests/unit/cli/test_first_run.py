"""What a user without a key can do."""

import pytest

from orchestrator.cli.first_run import first_run_lines, ollama_models
from tests.support.fake_http import Events, Plain, fake_http

DEMO = "without a key and a model, see an Expert work: perstack-orch demo"


@pytest.mark.parametrize(
    ("values", "ollama", "first"),
    [
        ({}, None, [DEMO]),
        ({}, (), ["Ollama answers on this machine, without a key: it has no model yet: `ollama pull MODEL`", DEMO]),
        (
            {"OPENAI_API_KEY": "k", "GOOGLE_GENERATIVE_AI_API_KEY": ""},
            ("gpt-oss:20b", "gemma3:4b"),
            [
                "OPENAI_API_KEY is set: add --provider openai --model gpt-5-mini",
                "Ollama answers on this machine, without a key: add --provider ollama --model gpt-oss:20b",
                DEMO,
            ],
        ),
    ],
)
def test_the_lines_name_what_works_here(
    values: dict[str, str], ollama: tuple[str, ...] | None, first: list[str]
) -> None:
    """Keys of other providers, a server of Ollama, the demo, and at last all variables; no value is shown."""
    lines = list(first_run_lines("anthropic", values, ollama))
    assert lines[:-1] == first
    assert lines[-1] == (
        "other providers, with their variables: google (GOOGLE_GENERATIVE_AI_API_KEY), deepseek (DEEPSEEK_API_KEY),"
        " openai (OPENAI_API_KEY), azure-openai (AZURE_API_KEY)"
    )


@pytest.mark.parametrize(
    ("answer", "models"),
    [
        (Plain(200, '{"data": [{"id": "gpt-oss:20b"}, {"id": 5}, 7]}'), ("gpt-oss:20b",)),
        (Plain(200, '{"object": "list", "data": null}'), ()),
        (Plain(200, "[]"), ()),
        (Plain(404, "no"), None),
        (Plain(200, "<html>"), None),
        (Events((), then="stall"), None),
    ],
)
async def test_only_an_answer_in_its_format_is_ollama(answer: Plain | Events, models: tuple[str, ...] | None) -> None:
    """A server of another kind, or one that does not answer at once, is not offered."""
    async with fake_http(listing=answer) as fake:
        assert await ollama_models({"OLLAMA_BASE_URL": fake.url}) == models


async def test_no_server_is_no_ollama() -> None:
    """A closed port and an unusable address are not offered."""
    assert await ollama_models({"OLLAMA_BASE_URL": "http://127.0.0.1:1"}) is None
    assert await ollama_models({"OLLAMA_BASE_URL": "not a url"}) is None
