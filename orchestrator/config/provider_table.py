"""`[provider]` and `[provider.setting]` (spec 1.3)."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from orchestrator.config.endpoint import parse_base_url
from orchestrator.config.table import Table

BaseUrl = Annotated[str, AfterValidator(parse_base_url)]


def _beside_the_config(name: str) -> str:
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts:
        message = "must name a file beside perstack.toml"
        raise ValueError(message)
    return name


class HttpSetting(Table):
    """How to reach an API over HTTP."""

    base_url: BaseUrl | None = None
    headers: dict[str, str] | None = None


class OpenaiSetting(HttpSetting):
    """OpenAI's own."""

    organization: str | None = None
    project: str | None = None
    name: str | None = None


class OllamaSetting(Table):
    """Ollama runs on one's own machines, so http is as good as https."""

    base_url: str | None = None
    headers: dict[str, str] | None = None


class AzureSetting(HttpSetting):
    """Azure's own."""

    resource_name: str | None = None
    api_version: str | None = None
    use_deployment_based_urls: bool | None = None


class BedrockSetting(Table):
    """Amazon's own."""

    region: str | None = None


class VertexSetting(HttpSetting):
    """Google Cloud's own."""

    project: str | None = None
    location: str | None = None


class ScriptedSetting(Table):
    """The scripted provider, ours: a file of replies beside the config."""

    replies: Annotated[str, AfterValidator(_beside_the_config)] | None = None


class HttpProvider(Table):
    """APIs that need no more than HTTP does."""

    provider_name: Literal["anthropic", "google", "deepseek"]
    setting: HttpSetting = HttpSetting()


class OpenaiProvider(Table):
    """OpenAI."""

    provider_name: Literal["openai"]
    setting: OpenaiSetting = OpenaiSetting()


class OllamaProvider(Table):
    """Ollama."""

    provider_name: Literal["ollama"]
    setting: OllamaSetting = OllamaSetting()


class AzureProvider(Table):
    """Azure OpenAI."""

    provider_name: Literal["azure-openai"]
    setting: AzureSetting = AzureSetting()


class BedrockProvider(Table):
    """Amazon Bedrock."""

    provider_name: Literal["amazon-bedrock"]
    setting: BedrockSetting = BedrockSetting()


class VertexProvider(Table):
    """Google Vertex AI."""

    provider_name: Literal["google-vertex"]
    setting: VertexSetting = VertexSetting()


class ScriptedProvider(Table):
    """Replies from a file."""

    provider_name: Literal["scripted"]
    setting: ScriptedSetting = ScriptedSetting()


Provider = Annotated[
    HttpProvider
    | OpenaiProvider
    | OllamaProvider
    | AzureProvider
    | BedrockProvider
    | VertexProvider
    | ScriptedProvider,
    Field(discriminator="provider_name"),
]

SETTING_KEYS = frozenset[str]().union(
    *(
        setting.keys()
        for setting in (OpenaiSetting, OllamaSetting, AzureSetting, BedrockSetting, VertexSetting, ScriptedSetting)
    )
)
"""Every key that some provider knows in `[provider.setting]`."""
