"""README and docs hold: every command they show is understood, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from services.cli.main import lesionlens

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])


def shown(program: str) -> list[list[str]]:
    """Arguments of each call of `program` in README's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    calls = [shlex.split(line, comments=True) for line in lines]
    return [call[1:] for call in calls if call and call[0].rpartition("/")[2] == program]


@pytest.mark.parametrize("arguments", shown("lesionlens"), ids=" ".join)
def test_the_command_line_knows_what_readme_shows(arguments: list[str]) -> None:
    command, context = lesionlens, None
    while hasattr(command, "get_command"):
        name, *arguments = arguments
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    # Parses options and arguments, calls nothing; an unknown option raises.
    command.make_context(command.name, list(arguments), resilient_parsing=True)


def test_make_knows_what_readme_shows_and_lists_every_verb() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    verbs = set(re.findall(r"^  make (\S+)", listed, re.MULTILINE))
    assert {"setup", "demo", "up", "down", "test", "lint", "bench", "eval", "clean"} <= verbs
    used = {call[0] for call in shown("make")}
    assert used
    assert used <= verbs


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [t for t in targets if t and "://" not in t]
    missing = [t for t in local if not (page.parent / t).exists()]
    assert missing == []
