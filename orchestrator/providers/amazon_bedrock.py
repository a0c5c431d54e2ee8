"""Amazon Bedrock: perstack.toml may name it, and no Run can use it yet."""

from orchestrator.providers.setting import SettingTable
from orchestrator.providers.spec import ProviderSpec


class BedrockSetting(SettingTable):
    """Amazon's own."""

    region: str | None = None


SPEC = ProviderSpec(
    name="amazon-bedrock",
    connect=None,
    settings=BedrockSetting,
    required=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    one_of={"region": "AWS_REGION"},
)
