import json
from pathlib import Path

from orchestrator.config import load
from orchestrator.providers import ProviderSetting, open_provider

EXAMPLE = Path(__file__).parents[3] / "examples" / "fitness"


def test_config_is_clean() -> None:
    """The example loads in strict mode without a note."""
    config = load(EXAMPLE / "perstack.toml", strict=True)
    assert config.notes == ()
    assert (config.provider_name, tuple(config.experts)) == ("scripted", ("fitness-assistant", "pro-trainer"))
    assert config.expert("fitness-assistant").delegates == ("pro-trainer",)


def test_script_makes_seven_calls() -> None:
    """Four replies of the assistant and three of the trainer, with these tools in order; one more for --continue."""
    script = json.loads((EXAMPLE / "replies.json").read_text())
    tools = {
        expert: [[call["name"] for call in reply.get("toolCalls", [])] for reply in replies]
        for expert, replies in script.items()
    }
    assert tools == {
        "fitness-assistant": [["listDirectory"], ["pro-trainer"], ["writeTextFile"], [], []],
        "pro-trainer": [["listDirectory"], ["attemptCompletion"], []],
    }
    # Text with attemptCompletion would end the Run at once (docs/reference/perstack.md#completion), one call early.
    assert "text" not in script["pro-trainer"][1]


async def test_provider_reads_the_script() -> None:
    """The scripted provider accepts the file unchanged."""
    config = load(EXAMPLE / "perstack.toml")
    setting = ProviderSetting(config.provider_name, config.provider_setting, {}, config.directory)
    async with open_provider(setting) as provider:
        assert provider is not None
