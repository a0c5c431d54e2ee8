"""Google Vertex AI: perstack.toml may name it, and no Run can use it yet."""

from orchestrator.providers.setting import HttpSetting
from orchestrator.providers.spec import ProviderSpec


class VertexSetting(HttpSetting):
    """Google Cloud's own."""

    project: str | None = None
    location: str | None = None


SPEC = ProviderSpec(name="google-vertex", connect=None, settings=VertexSetting, harmless=frozenset({"project"}))
