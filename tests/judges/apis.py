"""The APIs, each with its judge and its streams."""

from collections.abc import Mapping

from orchestrator.providers import ollama
from orchestrator.providers.openai.provider import reasoning_effort
from orchestrator.providers.openai.request import Dialect
from tests.judges import streams
from tests.judges.anthropic_judge import AnthropicJudge
from tests.judges.google_judge import GoogleJudge
from tests.judges.judge import Api
from tests.judges.openai_judge import OpenaiJudge

APIS: Mapping[str, Api] = {
    "anthropic": Api("anthropic", "ANTHROPIC_API_KEY", AnthropicJudge()),
    "openai": Api("openai", "OPENAI_API_KEY", OpenaiJudge(Dialect(None, reasoning_effort)), "/v1"),
    "azure": Api("azure-openai", "AZURE_API_KEY", OpenaiJudge(Dialect(None), sends_key=False), "/openai"),
    "azure deployments": Api(
        "azure-openai",
        "AZURE_API_KEY",
        OpenaiJudge(Dialect(None), deployments=True),
        "/openai",
        {"useDeploymentBasedUrls": True, "apiVersion": "2026-01-01"},
    ),
    "deepseek": Api("deepseek", "DEEPSEEK_API_KEY", OpenaiJudge(Dialect(None, replays_reasoning=True))),
    "ollama": Api("ollama", None, OpenaiJudge(Dialect(None, ollama._effort), sends_key=False)),  # noqa: SLF001
    "google": Api("google", "GOOGLE_GENERATIVE_AI_API_KEY", GoogleJudge(), "/v1beta"),
}

STREAMS: Mapping[str, Mapping[str, bytes]] = {
    "anthropic": streams.ANTHROPIC,
    "openai": streams.OPENAI,
    "azure": {name: streams.OPENAI[name] for name in ("text", "tool calls")},
    "azure deployments": {name: streams.OPENAI[name] for name in ("text", "tool calls")},
    "deepseek": streams.DEEPSEEK,
    "ollama": streams.OLLAMA,
    "google": streams.GOOGLE,
}
