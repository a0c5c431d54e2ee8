"""What is known of models by exact name (spec 10.3); any other name is accepted and only loses these figures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Size:
    window: int
    output: int | None = None


_CLAUDE_32 = _Size(200_000, 32_000)
_CLAUDE_64 = _Size(200_000, 64_000)
_CLAUDE_8 = _Size(200_000, 8192)
_GEMINI = _Size(1_048_576, 65_536)
_GPT_5 = _Size(400_000, 128_000)
_O3 = _Size(200_000, 10_000)
_GPT_OSS = _Size(131_072, 131_072)
_GEMMA = _Size(128_000)

_SIZES = {
    ("anthropic", "claude-opus-4-5"): _CLAUDE_32,
    ("anthropic", "claude-opus-4-1"): _CLAUDE_32,
    ("anthropic", "claude-opus-4-20250514"): _CLAUDE_32,
    ("anthropic", "claude-sonnet-4-5"): _CLAUDE_64,
    ("anthropic", "claude-sonnet-4-20250514"): _CLAUDE_64,
    ("anthropic", "claude-3-7-sonnet-20250219"): _CLAUDE_64,
    ("anthropic", "claude-haiku-4-5"): _CLAUDE_8,
    ("anthropic", "claude-3-5-haiku-latest"): _CLAUDE_8,
    ("google", "gemini-3-pro-preview"): _GEMINI,
    ("google", "gemini-2.5-pro"): _GEMINI,
    ("google", "gemini-2.5-flash"): _GEMINI,
    ("google", "gemini-2.5-flash-lite"): _GEMINI,
    ("openai", "gpt-5"): _GPT_5,
    ("openai", "gpt-5-mini"): _GPT_5,
    ("openai", "gpt-5-nano"): _GPT_5,
    ("openai", "gpt-5-chat-latest"): _Size(128_000, 16_384),
    ("openai", "o4-mini"): _Size(200_000, 100_000),
    ("openai", "o3"): _O3,
    ("openai", "o3-mini"): _O3,
    ("openai", "gpt-4.1"): _Size(1_047_576, 32_768),
    ("deepseek", "deepseek-chat"): _Size(128_000, 8192),
    ("deepseek", "deepseek-reasoner"): _Size(128_000, 64_000),
    ("ollama", "gpt-oss:20b"): _GPT_OSS,
    ("ollama", "gpt-oss:120b"): _GPT_OSS,
    ("ollama", "gemma3:1b"): _Size(32_000),
    ("ollama", "gemma3:4b"): _GEMMA,
    ("ollama", "gemma3:12b"): _GEMMA,
    ("ollama", "gemma3:27b"): _GEMMA,
}


def context_window(provider: str, model: str) -> int | None:
    """How many tokens a conversation may have, where known."""
    size = _SIZES.get((provider, model))
    return size.window if size else None


def max_output(provider: str, model: str) -> int | None:
    """How many tokens one reply may have, reasoning included, where known."""
    size = _SIZES.get((provider, model))
    return size.output if size else None
