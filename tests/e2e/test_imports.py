"""What a job with a real API imports on the host: each module delays the first model request."""

import json
from pathlib import Path

import pytest

from tests.support import fake_anthropic, fake_google, fake_openai
from tests.support.fake_http import Events, fake_http
from tests.support.project import ONE, Project

SLOW = {"anthropic", "openai", "google", "httpx", "httpx2", "httpcore2", "anyio", "mcp", "jiter", "aiohttp", "requests"}
"""The SDKs of model APIs and of MCP, and what they bring."""

ANSWERS = {
    "anthropic": fake_anthropic.stream(
        [fake_anthropic.start(), *fake_anthropic.text(0, "done"), *fake_anthropic.stop("end_turn")]
    ),
    "openai": Events([fake_openai.chunk(content="done"), *fake_openai.stop("stop")]),
    "google": Events([fake_google.chunk(fake_google.text("done")), *fake_google.stop("STOP")]),
}
VARIABLES = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "google": ("GOOGLE_GENERATIVE_AI_API_KEY", "GOOGLE_GENERATIVE_AI_BASE_URL"),
}


@pytest.mark.parametrize("provider", ANSWERS)
async def test_a_job_imports_no_sdk(tmp_path: Path, provider: str) -> None:
    """Neither up to the first request nor after it: the interpreter reports each import of the whole command."""
    made = Project(tmp_path / "project", "process")
    made.directory.mkdir()
    (made.directory / "perstack.toml").write_text(ONE)
    key, url = VARIABLES[provider]
    async with fake_http(ANSWERS[provider]) as api:
        env = {key: "canary-0123456789", url: api.url, "PYTHONPROFILEIMPORTTIME": "1"}
        result = await made.run("one", "go", "--provider", provider, "--model", "m", env=env)
        assert "done" in json.dumps(json.loads(result.stdout.splitlines()[-1])), result.stderr
        assert len(api.received) == 1
    imported = {
        line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")
    }
    assert {"h11", "orchestrator.providers.api_client"} <= imported
    assert {name for name in imported if name.partition(".")[0] in SLOW} == set()
