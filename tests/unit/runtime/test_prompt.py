"""The system prompt."""

from orchestrator.runtime.prompt import system_prompt
from orchestrator.wire.run import Delegate
from orchestrator.wire.skill import SseSkill
from tests.support.scripted_host import a_run, expert


def test_a_bare_expert() -> None:
    """Time, directory and instruction are included; empty sections are not."""
    prompt = system_prompt(a_run())
    assert "- Current time: 2025-12-17T19:33:20.000Z\n- Current working directory: /workspace" in prompt
    assert prompt.endswith("\n\nWork.")
    assert "Call several tools or delegates in one turn" in prompt


def test_skills_and_delegates() -> None:
    """Rules name their skill, delegates have their description if any, in Perstack's order."""
    ruled = SseSkill(name="far", endpoint="https://example.com", rule="Be brief.")
    delegates = (
        Delegate(key="@o/a", name="@o/a", version="1.0.0", description="Adds."),
        Delegate(key="b", name="b", version="1.0.0"),
    )
    prompt = system_prompt(a_run(expert=expert(skills=(ruled,)), delegates=delegates))
    assert prompt.endswith('\n\nAbout "@o/a":\nAdds.\n\nAbout "b"')
    assert 'Rules of skill "far":\nBe brief.' in prompt
    assert prompt.index("Work.") < prompt.index("Be brief.") < prompt.index("Adds.")
    assert "undefined" not in prompt
    assert "None" not in prompt
