from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import Config, find, load
from orchestrator.config.config import DEFAULT_MODEL
from orchestrator.errors import ConfigError
from orchestrator.wire.expert import Expert
from orchestrator.wire.skill import BASE_SKILL, InteractiveSkill, InteractiveTool, SseSkill, StdioSkill

Write = Callable[[str], Path]

BASE = StdioSkill(name=BASE_SKILL, command="npx", package_name="@perstack/base")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a perstack.toml and returns its path."""

    def write_toml(text: str) -> Path:
        file = tmp_path / "perstack.toml"
        file.write_text(text)
        return file

    return write_toml


def problems(file: Path, *, strict: bool = False) -> list[str]:
    """The problem lines of the error from loading `file`."""
    with pytest.raises(ConfigError) as raised:
        load(file, strict=strict)
    first, *lines = str(raised.value).split("\n")
    assert first == f"{file}: Validation failed:"
    return lines


def with_skill(lines: str) -> str:
    """A config with one Expert, whose skill `s` has these lines."""
    return f'[experts.x]\ninstruction = "x"\n[experts.x.skills.s]\n{lines}\n'


@pytest.mark.behaviour("A1")
def test_the_nearest_file_upwards_is_found(tmp_path: Path) -> None:
    """The config of the nearest directory wins over those above."""
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (tmp_path / "perstack.toml").touch()
    (tmp_path / "a" / "perstack.toml").touch()
    (tmp_path / "a" / "b" / "perstack.toml").mkdir()
    assert find(inner) == tmp_path / "a" / "perstack.toml"
    assert find(tmp_path) == tmp_path / "perstack.toml"


@pytest.mark.behaviour("A1")
def test_without_a_file_the_error_suggests_config(tmp_path: Path) -> None:
    """Without any config, the error names the directory and `--config`."""
    with pytest.raises(ConfigError, match=r"no perstack\.toml in .*; create one, or name one with --config") as raised:
        find(tmp_path)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.behaviour("A2")
def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error has the path and what to do."""
    missing = tmp_path / "nowhere" / "perstack.toml"
    with pytest.raises(ConfigError) as raised:
        load(missing)
    assert str(raised.value) == f"config {missing} is not found; create it, or name another with --config"
    assert raised.value.exit_code == 2


def test_config_is_relative_to_the_current_directory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config` is relative to the current directory."""
    file = write("")
    monkeypatch.chdir(file.parent)
    assert load("perstack.toml") == Config(path=file, directory=file.parent)


def test_directory_in_place_of_a_file(tmp_path: Path) -> None:
    """A directory in place of the file is reported as unreadable."""
    with pytest.raises(ConfigError, match="cannot be read: Is a directory; correct it, or name another with --config"):
        load(tmp_path)


@pytest.mark.behaviour("A4")
def test_every_problem_is_listed_with_its_path(write: Write) -> None:
    """All problems are listed at once: the file, then a line for each with its dotted path."""
    file = write("""
        maxSteps = 0
        maxRetries = -1
        timeout = "5"
        reasoningBudget = "huge"
        perstackApiBaseUrl = "http://example.com"
        [provider]
        providerName = "openai"
        [provider.setting]
        baseUrl = "http://example.com"
        headers = 3
        [experts."a.b"]
        instruction = ""
        [experts.x]
        version = "1.0"
        description = ""
        delegates = ["y", "Bad!", "z1"]
        tags = ["ok", "Not"]
        [experts.x.skills.s]
        type = "mcpStdioSkill"
        [experts.x.skills.u]
        [experts.z]
        instruction = 5
        providerSkills = [{ type = "builtin", skillId = "xls" }]
        providerToolOptions = { webSearch = { maxUses = 0 } }
        """)
    assert problems(file) == [
        "  - provider.setting.baseUrl: must be an https URL; http is allowed on this machine only",
        "  - provider.setting.headers: must be a table",
        "  - reasoningBudget: must be one of none, minimal, low, medium, high, or a whole number of tokens",
        "  - maxSteps: must be greater than or equal to 1",
        "  - maxRetries: must be greater than or equal to 0",
        "  - timeout: must be a valid integer",
        (
            "  - experts.a.b: 'a.b' is not an Expert's name: name or @org/name, up to 255 lower-case letters, "
            "digits, - and _"
        ),
        "  - experts.a.b.instruction: must have 1 to 20480 characters",
        "  - experts.x.version: '1.0' is not a version such as 1.0.0",
        "  - experts.x.description: must have 1 to 2048 characters",
        "  - experts.x.instruction: is required",
        "  - experts.x.skills.s.command: is required",
        "  - experts.x.skills.s.args: give packageName or args; without both, the skill cannot start",
        "  - experts.x.skills.u.type: is required",
        "  - experts.x.delegates.1: invalid expert key format: 'Bad!'",
        "  - experts.x.tags.1: 'Not' is not a tag: lower-case letters, digits, - and _",
        "  - experts.z.instruction: must be a valid string",
        "  - experts.z.providerSkills.0.skillId: must be 'pdf', 'docx', 'pptx' or 'xlsx'",
        "  - experts.z.providerToolOptions.webSearch.maxUses: must be greater than 0",
        "  - perstackApiBaseUrl: must be an https URL",
        "  - experts.x.delegates.0: Expert 'y' is not in this file, and the registry is not supported yet",
        (
            "  - experts.x.delegates.2: Expert 'z1' is not in this file, and the registry is not supported yet; "
            "did you mean 'z'?"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('provider = "openai"', "  - provider: must be a table"),
        ("[provider]", "  - provider.providerName: is required"),
        ("[experts]\nx = 1", "  - experts.x: must be a table"),
        ("experts = []", "  - experts: must be a table"),
        ("[experts.x]\nskills = 1\ninstruction = 'x'", "  - experts.x.skills: must be a table"),
        ("[experts.x]\ndelegates = 'y'\ninstruction = 'x'", "  - experts.x.delegates: must be a valid list"),
        (with_skill("type = []"), "  - experts.x.skills.s.type: must be one of 'mcpStdioSkill', 'mcpSseSkill', "),
        ("maxSteps = true", "  - maxSteps: must be a valid integer"),
        ("reasoningBudget = true", "  - reasoningBudget: must be one of none"),
        ("reasoningBudget = -1", "  - reasoningBudget: must be one of none"),
        ('["exp\\u001b[31m\\n"]', ""),
    ],
)
def test_wrong_shapes(write: Write, text: str, problem: str) -> None:
    """A value of the wrong type is one problem with its path, wherever it is."""
    file = write(text)
    if problem:
        (line,) = problems(file)
        assert line.startswith(problem)
    else:
        assert load(file).notes == ('"exp\\u001b[31m\\n": unknown key; ignored',)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('a = 1\nb = = "x"\n', ", line 2, column 5: not TOML: Invalid value"),
        ("a = [1", ": not TOML: Unclosed array (at end of document)"),
    ],
)
def test_syntax_error_names_the_place(write: Write, text: str, sentence: str) -> None:
    """Invalid TOML is one sentence with file, line and column."""
    file = write(text)
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert str(raised.value) == f"{file}{sentence}"


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused with their line."""
    file = tmp_path / "perstack.toml"
    file.write_bytes(b'a = 1\nb = "\xff"\n')
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert str(raised.value) == f"{file}, line 2: not UTF-8; save the file as UTF-8"


def test_nesting_without_end(write: Write) -> None:
    """A file nested too deeply for the parser is refused without a traceback."""
    file = write("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(file)


@pytest.mark.behaviour("A5")
def test_version_and_name_have_defaults(write: Write) -> None:
    """An Expert without a version is 1.0.0; its table's key is both key and name."""
    assert load(write('[experts."@org/x"]\ninstruction = "do"')).experts == {
        "@org/x": Expert(key="@org/x", name="@org/x", version="1.0.0", instruction="do", skills=(BASE,))
    }


@pytest.mark.behaviour("A6")
def test_options_go_before_the_file_and_the_file_before_defaults(write: Write) -> None:
    """Without settings the defaults apply; the file overrides them, and options override the file."""
    file = write("")
    blank = load(file)
    assert blank == Config(
        path=file,
        directory=file.parent,
        provider_name="anthropic",
        provider_setting={},
        model=None,
        reasoning_budget="low",
        max_steps=100,
        max_retries=5,
        timeout_ms=300_000,
        env_path=(".env", ".env.local"),
        experts={},
        base_skill_command=None,
        notes=(),
    )
    assert DEFAULT_MODEL == "claude-sonnet-4-5"
    write("""
        model = "m"
        reasoningBudget = 77
        maxSteps = 3
        maxRetries = 0
        timeout = 9
        envPath = ["x.env"]
        perstackBaseSkillCommand = ["node", "base.js"]
        [provider]
        providerName = "anthropic"
        [provider.setting]
        baseUrl = "http://127.0.0.1:8080"
        headers = { "X-Team" = "a" }
        """)
    declared = load(file)
    assert declared == Config(
        path=file,
        directory=file.parent,
        provider_name="anthropic",
        provider_setting={"baseUrl": "http://127.0.0.1:8080", "headers": {"X-Team": "a"}},
        model="m",
        reasoning_budget=77,
        max_steps=3,
        max_retries=0,
        timeout_ms=9,
        env_path=("x.env",),
        base_skill_command=("node", "base.js"),
    )
    overridden = declared.overridden(model="n", max_retries=2, provider_name="anthropic")
    assert (overridden.model, overridden.max_retries, overridden.max_steps) == ("n", 2, 3)
    assert overridden.provider_setting == declared.provider_setting
    assert declared.overridden() == declared


def test_setting_goes_with_its_provider(write: Write) -> None:
    """Choosing another provider drops the setting of the declared one."""
    config = load(write('[provider]\nproviderName = "scripted"\n[provider.setting]\nreplies = "a.json"'))
    assert config.provider_setting == {"replies": "a.json"}
    other = config.overridden(provider_name="anthropic")
    assert (other.provider_name, other.provider_setting) == ("anthropic", {})


def test_setting_is_not_shown(write: Write) -> None:
    """The setting may contain secret headers, so the repr does not contain it."""
    config = load(write('[provider]\nproviderName = "google"\n[provider.setting]\nheaders = { a = "s3cret" }'))
    assert config.provider_setting == {"headers": {"a": "s3cret"}}
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("anthropic", {"baseUrl": "https://a.b", "headers": {}}),
        ("google", {"baseUrl": "https://a.b"}),
        ("deepseek", {"baseUrl": "https://a.b"}),
        ("openai", {"organization": "o", "project": "p", "name": "n"}),
        ("ollama", {"baseUrl": "http://far.example:11434"}),
        ("azure-openai", {"resourceName": "r", "apiVersion": "v", "useDeploymentBasedUrls": True}),
        ("amazon-bedrock", {"region": "r"}),
        ("google-vertex", {"project": "p", "location": "l"}),
        ("scripted", {"replies": "script/replies.json"}),
    ],
)
def test_settings_of_each_provider(write: Write, name: str, setting: dict[str, object]) -> None:
    """Each provider accepts its own setting keys, and they are passed unchanged."""
    values = {True: "true"}
    lines = "\n".join(
        f"{key} = {'{}' if value == {} else values.get(value is True, repr(value))}" for key, value in setting.items()
    )
    config = load(write(f'[provider]\nproviderName = "{name}"\n[provider.setting]\n{lines}'), strict=True)
    assert (config.provider_name, config.provider_setting) == (name, setting)


def test_settings_of_another_provider_are_unknown(write: Write) -> None:
    """A key of another provider's setting is reported, and not passed on."""
    config = load(write('[provider]\nproviderName = "amazon-bedrock"\n[provider.setting]\nbaseUrl = "https://a.b"'))
    assert (config.provider_setting, config.notes) == ({}, ("provider.setting.baseUrl: unknown key; ignored",))


@pytest.mark.parametrize("name", ["/etc/passwd", "../replies.json", "a/../../b", ".", ""])
def test_replies_are_next_to_the_config(write: Write, name: str) -> None:
    """The script's file must be next to the config, since the config may come from elsewhere."""
    file = write(f'[provider]\nproviderName = "scripted"\n[provider.setting]\nreplies = "{name}"')
    assert problems(file) == ["  - provider.setting.replies: must name a file next to perstack.toml"]


def test_unknown_provider_lists_the_known(write: Write) -> None:
    """An unknown provider is a problem at `providerName`."""
    (line,) = problems(write('[provider]\nproviderName = "openia"'))
    assert line.startswith("  - provider.providerName: must be one of 'anthropic', 'google', ")
    assert line.endswith(", 'scripted', not 'openia'; did you mean 'openai'?")


@pytest.mark.behaviour("A9")
def test_no_skills_table_means_the_base_skill(write: Write) -> None:
    """Without skills an Expert has exactly the base skill, and neither delegates nor tags."""
    expert = load(write('[experts.x]\ninstruction = "x"')).experts["x"]
    assert (expert.skills, expert.delegates, expert.tags) == ((BASE,), (), ())


@pytest.mark.behaviour("A9")
def test_an_unknown_type_of_skill_is_an_error(write: Write) -> None:
    """The problem is at `type`."""
    assert problems(write(with_skill('type = "mcpFooSkill"'))) == [
        (
            "  - experts.x.skills.s.type: must be one of 'mcpStdioSkill', 'mcpSseSkill', 'interactiveSkill', "
            "not 'mcpFooSkill'"
        )
    ]


def test_custom_skills_keep_the_base_skill(write: Write) -> None:
    """Skills of every type are read, and the base skill is added as the first one."""
    config = load(
        write("""
        [experts.x]
        instruction = "x"
        delegates = ["x", "x"]
        [experts.x.skills.search]
        type = "mcpStdioSkill"
        command = "npx"
        packageName = "exa-mcp-server"
        requiredEnv = ["EXA_API_KEY", "_own"]
        allowedDomains = ["API.exa.ai", "*.Example.com"]
        pick = ["a"]
        omit = ["b"]
        lazyInit = true
        [experts.x.skills.far]
        type = "mcpSseSkill"
        endpoint = "https://mcp.example.com/sse"
        description = "d"
        rule = "r"
        [experts.x.skills.ask]
        type = "interactiveSkill"
        [experts.x.skills.ask.tools.confirm]
        name = "ignored"
        description = "Ask"
        inputJsonSchema = '{"type": "object"}'
        """),
        strict=True,
    )
    assert config.experts["x"] == Expert(
        key="x",
        name="x",
        instruction="x",
        delegates=("x",),
        skills=(
            BASE,
            StdioSkill(
                name="search",
                command="npx",
                package_name="exa-mcp-server",
                required_env=("EXA_API_KEY", "_own"),
                allowed_domains=("api.exa.ai", "*.example.com"),
                pick=("a",),
                omit=("b",),
                lazy_init=True,
            ),
            SseSkill(name="far", endpoint="https://mcp.example.com/sse", description="d", rule="r"),
            InteractiveSkill(
                name="ask",
                tools=(InteractiveTool(name="confirm", description="Ask", input_schema={"type": "object"}),),
            ),
        ),
    )


def test_declared_base_skill_stays_in_its_place(write: Write) -> None:
    """A declared base skill keeps its position, but never starts lazily."""
    config = load(
        write("""
        [experts.x]
        instruction = "x"
        [experts.x.skills.first]
        type = "mcpStdioSkill"
        command = "uvx"
        args = ["mcp-server-time"]
        [experts.x.skills."@perstack/base"]
        type = "mcpStdioSkill"
        command = "npx"
        packageName = "@perstack/base"
        omit = ["exec"]
        lazyInit = true
        """)
    )
    assert config.experts["x"].skills == (
        StdioSkill(name="first", command="uvx", args=("mcp-server-time",)),
        BASE.with_(omit=("exec",)),
    )


def test_base_skill_is_not_interactive(write: Write) -> None:
    """The built-in tools cannot be replaced by an interactive skill."""
    skill = '[experts.x.skills."@perstack/base"]\ntype = "interactiveSkill"\ntools = {}'
    file = write(f'[experts.x]\ninstruction = "x"\n{skill}')
    assert problems(file) == [
        ("  - experts.x.skills: @perstack/base names the built-in tools; an interactive skill needs another name")
    ]


@pytest.mark.behaviour("E1")
@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", "args: give packageName or args; without both, the skill cannot start"),
        ("args = []", "args: give packageName or args; without both, the skill cannot start"),
        ('args = ["a"]\npackageName = "b"', "args: give packageName or args, not both"),
        ("packageName = 5", "packageName: must be a valid string"),
    ],
)
def test_exactly_one_of_package_and_arguments_starts_a_skill(write: Write, lines: str, problem: str) -> None:
    """Empty arguments count as none."""
    file = write(with_skill(f'type = "mcpStdioSkill"\ncommand = "npx"\n{lines}'))
    assert problems(file) == [f"  - experts.x.skills.s.{problem}"]


@pytest.mark.parametrize("schema", ["[]", "{", "1", ""])
def test_interactive_schema_is_an_object(write: Write, schema: str) -> None:
    """A tool's schema is parsed at load, and must be a JSON object."""
    file = write(with_skill(f"type = 'interactiveSkill'\ntools = {{ t = {{ inputJsonSchema = '{schema}' }} }}"))
    (line,) = problems(file)
    assert line.startswith("  - experts.x.skills.s.tools.t.inputJsonSchema: ")


@pytest.mark.behaviour("G17")
@pytest.mark.parametrize("name", ["A\\nB", "A=B", "A B", "", "A\\u0000", "Ä", "-A", "$(A)"])
def test_harmful_names_of_variables_are_refused(write: Write, name: str) -> None:
    """A name could break a line or be read as something else."""
    file = write(with_skill(f'type = "mcpStdioSkill"\ncommand = "npx"\nargs = ["a"]\nrequiredEnv = ["OK", "{name}"]'))
    (line,) = problems(file)
    assert line.startswith("  - experts.x.skills.s.requiredEnv.1: ")
    assert line.endswith("is not the name of an environment variable")


@pytest.mark.behaviour("E3")
def test_protected_variables_are_dropped_with_a_note(write: Write) -> None:
    """A protected name, in any case, never reaches a skill, and there is a note about it."""
    config = load(
        write(with_skill('type = "mcpStdioSkill"\ncommand = "a"\nargs = ["b"]\nrequiredEnv = ["Path", "KEY"]'))
    )
    assert config.experts["x"].skills[1] == StdioSkill(name="s", command="a", args=("b",), required_env=("KEY",))
    assert config.notes == ("experts.x.skills.s.requiredEnv.0: Path is protected and never passed on; ignored",)


def test_unknown_keys_are_notes_with_hints(write: Write) -> None:
    """Unknown keys at every level are reported with a suggestion; in strict mode they are problems."""
    file = write("""
        max_steps = 3
        [provider]
        providerName = "anthropic"
        envPath = ["x"]
        baseUrl = "https://a.b"
        [provider.setting]
        header = {}
        [experts.x]
        instruction = "x"
        runtime = "docker"
        [experts.x.skills.s]
        type = "mcpStdioSkill"
        command = "a"
        args = ["b"]
        requiredenv = ["KEY"]
        [experts.x.skills.ask]
        type = "interactiveSkill"
        tools = { t = { inputJsonSchema = "{}", zzz = 1 } }
        """)
    keys = [
        "max_steps: unknown key; did you mean maxSteps?",
        "provider.envPath: unknown key; did you mean the top-level envPath? move it above [provider]",
        "provider.baseUrl: unknown key; did you mean it to be in [provider.setting]?",
        "provider.setting.header: unknown key; did you mean headers?",
        "experts.x.runtime: unknown key; did you mean the top-level runtime? move it above [experts.x]",
        "experts.x.skills.s.requiredenv: unknown key; did you mean requiredEnv?",
        "experts.x.skills.ask.tools.t.zzz: unknown key",
    ]
    config = load(file)
    assert config.notes == tuple(f"{key}; ignored" for key in keys)
    assert (config.max_steps, config.env_path) == (100, (".env", ".env.local"))
    assert problems(file, strict=True) == [f"  - {key}" for key in keys]


@pytest.mark.parametrize("strict", [True, False])
def test_unknown_keys_are_listed_after_the_problems(write: Write, *, strict: bool) -> None:
    """Problems and unknown keys are in one list, since a missing key is often present but misspelt."""
    file = write('maxSteps = 0\n[experts.x]\ninstrucion = "x"')
    assert problems(file, strict=strict) == [
        "  - maxSteps: must be greater than or equal to 1",
        "  - experts.x.instruction: is required",
        "  - experts.x.instrucion: unknown key; did you mean instruction?",
    ]


def test_local_runtime_does_not_lower_isolation(write: Write) -> None:
    """`runtime = "local"` only causes a note, even in strict mode."""
    (note,) = load(write('runtime = "local"'), strict=True).notes
    assert "does not lower isolation" in note
    assert "--backend process" in note
    assert load(write('runtime = "docker"')).notes == ()


@pytest.mark.parametrize("runtime", ["cursor", "claude-code", "gemini"])
def test_other_runtimes_are_refused_by_name(write: Write, runtime: str) -> None:
    """Runtimes that cannot run in a Sandbox are refused."""
    assert problems(write(f'runtime = "{runtime}"')) == [
        f'  - runtime: runtime "{runtime}" is not supported: it cannot run in a Sandbox; use "docker"'
    ]


def test_tools_that_cannot_be_called_are_noted(write: Write) -> None:
    """A tool with the name of a built-in, an interactive or an earlier delegate's tool is reported, and no other."""
    names = ("@y/w", "@z/w", "@z/v", "@x/todo", "ask")
    others = "".join(f'[experts."{name}"]\ninstruction = "x"\n' for name in names)
    config = load(
        write(f"""
        {others}
        [experts.boss]
        instruction = "x"
        delegates = ["@y/w", "@z/w", "@z/v", "@x/todo", "ask"]
        [experts.boss.skills.user]
        type = "interactiveSkill"
        [experts.boss.skills.user.tools.ask]
        inputJsonSchema = '{{"type":"object"}}'
        [experts.boss.skills.user.tools.exec]
        inputJsonSchema = '{{"type":"object"}}'
        [experts.bare]
        instruction = "x"
        delegates = ["@x/todo"]
        [experts.bare.skills."@perstack/base"]
        type = "mcpStdioSkill"
        command = "npx"
        packageName = "@perstack/base"
        omit = ["todo"]
        """)
    )
    assert config.notes == (
        (
            "experts.boss.skills.user.tools.exec: tool 'exec' of skill 'user' cannot be called: the name 'exec' is "
            "taken by a built-in tool; rename it"
        ),
        (
            "experts.boss.delegates.1: delegate '@z/w' cannot be called: the name 'w' is taken by delegate '@y/w'; "
            "rename it"
        ),
        (
            "experts.boss.delegates.3: delegate '@x/todo' cannot be called: the name 'todo' is taken by a built-in "
            "tool; rename it"
        ),
        (
            "experts.boss.delegates.4: delegate 'ask' cannot be called: the name 'ask' is taken by tool 'ask' of "
            "skill 'user'; rename it"
        ),
    )


def test_unused_keys_are_checked_and_noted(write: Write) -> None:
    """Keys that Perstack accepts but never uses are accepted, checked, and noted."""
    config = load(
        write("""
        perstackApiBaseUrl = "https://api.example.com"
        [experts.x]
        instruction = "x"
        minRuntimeVersion = 3
        providerTools = ["webSearch"]
        providerSkills = [{ type = "custom", name = "a", definition = "b" }, { type = "builtin", skillId = "pdf" }]
        [experts.x.providerToolOptions]
        webSearch = { maxUses = 1, allowedDomains = ["a"] }
        webFetch = { maxUses = 1 }
        fileSearch = { vectorStoreIds = ["a"], maxNumResults = 1 }
        """),
        strict=True,
    )
    assert config.notes == (
        "experts.x.providerTools: accepted, but not used",
        "experts.x.providerSkills: accepted, but not used",
        "experts.x.providerToolOptions: accepted, but not used",
    )


@pytest.mark.parametrize(("text", "fits"), [("\U0001f600" * 1024, True), ("\U0001f600" * 1024 + "a", False)])
def test_lengths_count_utf16_units(write: Write, text: str, fits: bool) -> None:  # noqa: FBT001 - a parameter of the table
    """A character outside the basic plane counts twice, as in JavaScript."""
    file = write(f'[experts.x]\ninstruction = "x"\ndescription = "{text}"')
    if fits:
        assert load(file).experts["x"].description == text
    else:
        assert problems(file) == ["  - experts.x.description: must have 1 to 2048 characters"]


def test_unknown_expert_lists_the_known_close_ones_first(write: Write) -> None:
    """The error for an undeclared Expert lists the declared ones."""
    config = load(write('[experts.alpha]\ninstruction = "x"\n[experts.fitness]\ninstruction = "x"'))
    assert config.expert("alpha") is config.experts["alpha"]
    with pytest.raises(ConfigError) as raised:
        config.expert("fitnes")
    assert str(raised.value) == (
        f"Expert 'fitnes' is not in {config.path}, which declares fitness, alpha; the registry is not supported yet"
    )
