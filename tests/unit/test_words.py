"""dev/words finds the words that docs/style.md asks to avoid."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "dev" / "words"

# Its name has no suffix, so it cannot be imported.
words = SimpleNamespace(**runpy.run_path(str(SCRIPT), run_name="words"))


def _found(directory: Path, name: str, text: str) -> list[tuple[int, str]]:
    """Return line and phrase of each finding in a file with this text."""
    path = directory / name
    path.write_text(text)
    return [(each.line, each.phrase) for each in words.findings(path, name)]


@pytest.mark.parametrize("phrase", sorted(words.WORDS))
def test_each_word_is_found_in_each_kind_of_text(tmp_path: Path, phrase: str) -> None:
    """A phrase is found in a document, a comment, a docstring and a message, in any case, and across a line break."""
    broken = phrase.replace(" ", "\n")
    assert _found(tmp_path, "page.md", f"# Page\n\nHere {phrase}.\n") == [(3, phrase)]
    assert _found(tmp_path, "page.md", f"{broken.capitalize()}\n") == [(1, phrase)]
    assert _found(tmp_path, "page.md", f"Text.\n\n\n## {phrase}.\n\nHere {phrase}.\n") == [(4, phrase), (6, phrase)]
    assert _found(tmp_path, "Makefile", f"all: ## Do {phrase}\n") == [(1, phrase)]
    assert _found(tmp_path, "values.yaml", f"# {phrase.replace(' ', chr(10) + '# ')}.\na: 1\n") == [(1, phrase)]
    assert _found(tmp_path, "a.py", f"a = 1\n# {phrase}\n") == [(2, phrase)]
    assert _found(tmp_path, "a.py", f'"""First.\n\n{phrase}.\n"""\n') == [(3, phrase)]
    assert _found(tmp_path, "a.py", f'a = f"{phrase}, {{b}}"\n') == [(1, phrase)]


def test_code_is_no_prose(tmp_path: Path) -> None:
    """Names in Python code, text between backticks, parts of words and words of separate strings are not found."""
    assert _found(tmp_path, "a.py", 'nobody = says.whoever("any", "more")\n') == []
    assert _found(tmp_path, "page.md", "The Secret of its own job.\n") == []
    assert _found(tmp_path, "page.md", "Run `chown nobody file` as nobody-else, see busybody.\n") == []


def test_a_text_of_several_literals_is_one_text(tmp_path: Path) -> None:
    """A phrase is found where Python joins two literals, or where a comment continues on the next line."""
    assert _found(tmp_path, "a.py", 'a = (\n    "not any "\n    "more"\n)\n') == [(2, "any more")]
    assert _found(tmp_path, "a.py", "# not any\n# more\n") == [(1, "any more")]


def test_an_exception_needs_a_reason_and_a_finding(tmp_path: Path) -> None:
    """A comment with a reason excuses its line or string; one without a reason or a finding is reported."""
    assert _found(tmp_path, "a.py", 'user = "nobody"  # words: the user of that name\n') == []
    assert _found(tmp_path, "a.py", 'a = """one\nnobody\nthree"""  # words: a recorded reply\n') == []
    assert _found(tmp_path, "page.md", "The user nobody. <!-- words: a name -->\n") == []
    assert _found(tmp_path, "a.py", 'user = "nobody"  # words:\n') == [(1, "words:")]
    assert _found(tmp_path, "a.py", 'user = "root"  # words: not needed\n') == [(1, "words:")]
    assert _found(tmp_path, "a.py", "# words: of another line\nuser = 'nobody'\n") == [(1, "words:"), (2, "nobody")]


def test_the_command_prints_place_word_and_replacement(tmp_path: Path) -> None:
    """The exit code is 1 and each line has file, line number, the word, and what to write instead."""
    page = tmp_path / "page.md"
    page.write_text("Fine.\n\nThe file says so.\n")
    ran = subprocess.run([sys.executable, SCRIPT, page], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.splitlines()[0] == f"{page}:3: 'says': prints, reports, returns, states, shows"
    page.write_text("Fine.\n")
    ran = subprocess.run([sys.executable, SCRIPT, page], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_counting_prints_a_total(tmp_path: Path) -> None:
    """`--count` prints each word with its number, and the total per 1000 lines, with exit code 0."""
    (tmp_path / "a.py").write_text("# nobody\n# nobody says\n")
    ran = subprocess.run(
        [sys.executable, SCRIPT, "--count", tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (
        0,
        "     2 nobody\n     1 says\n     3 in 2 lines, 1500.0 per 1000 lines\n",
    )


def test_paths_and_exceptions_exist() -> None:
    """A path that was renamed is not left out of the check unseen."""
    root = SCRIPT.parents[1]
    assert [path for path in (*words.PATHS, *words.EXCEPTIONS) if not (root / path).exists()] == []
    assert [part for path, part in words.KEPT if part not in (root / path).read_text()] == []


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    """A path that does not exist gives exit code 2 and is named."""
    ran = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "absent"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert str(tmp_path / "absent") in ran.stderr
