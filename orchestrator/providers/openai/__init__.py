"""OpenAI's Chat Completions API, and providers that use it."""
