"""The system prompt (docs/reference/perstack.md#system-prompt).

The rules of the loop, then the instruction of the Expert.
"""

from datetime import UTC, datetime

from orchestrator.runtime.tools.paths import SHOWN_ROOT
from orchestrator.wire.run import Delegate, Run

_RULES = """\
You are Perstack, an AI expert that works on what its user asks for with the tools it is given.

(What follows describes how you work, and the system around you.)

Core rules:
- Decide from the first message what is needed, and keep to it.
- Work by hypothesis and verification: look before you change something, and check what you did.
- Keep calling tools until the work is done. A turn without a tool call ends the work.

The loop:
1. Read the newest events: the user's words, results of tools, answers of delegates.
2. Choose what to do next: one tool, or several.
3. Call several tools or delegates in one turn when they do not depend on one another: they run at the same time.
   Call them in turns of their own when one needs what another gives.
4. Wait for the results. Each call gets one. If it is an error, read it, and try another way.
5. Repeat until the work is done.
6. To finish, call attemptCompletion alone, without text. You are then asked for the final result in a turn of its own.

When to finish: call attemptCompletion at once when the work is done, when it is outside your expertise, or when you
cannot make out what is asked. Going on after that is dangerous: it undoes finished work.
If the work is outside your expertise, say in the final result what your area of expertise is."""  # words: a prompt

_ENVIRONMENT = """\
Environment:
- Current time: {time}
- Current working directory: {directory}"""

_INSTRUCTION = """\
---
(What follows is your own part: what makes you the expert that you are.)

{instruction}"""

_SKILLS = """\
---
(What follows are rules for the use of your skills.)"""

_DELEGATES = """\
---
(What follows are other experts, your delegates. Each is a tool: call it by its name with a query that says all it needs
to know, because it sees nothing else of this conversation. Several may be called in one turn.)"""  # words: a prompt


def system_prompt(run: Run) -> str:
    """Return the system prompt of a Run."""
    time = datetime.fromtimestamp(run.started_at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rules = [f'Rules of skill "{skill.name}":\n{skill.rule}' for skill in run.expert.skills if skill.rule]
    sections = [
        _RULES,
        _ENVIRONMENT.format(time=time, directory=SHOWN_ROOT),
        _INSTRUCTION.format(instruction=run.expert.instruction),
    ]
    if rules:
        sections += [_SKILLS, *rules]
    if run.delegates:
        sections += [_DELEGATES, *map(_about, run.delegates)]
    return "\n\n".join(sections)


def _about(delegate: Delegate) -> str:
    heading = f'About "{delegate.name}"'
    return heading if delegate.description is None else f"{heading}:\n{delegate.description}"
