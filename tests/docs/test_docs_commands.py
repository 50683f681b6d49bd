"""Every command line in the documents parses, and every flag, benchmark and target of make that they name exists."""

from __future__ import annotations

from contextlib import suppress

import click
import pytest
from support.command_lines import PAGES, ROOT, blocks, fenced, flags, inline, name_of, options, parse, prose, session

FENCED = fenced()
EXTERNAL = ("pip", "pytest", "twine", "make", "torchrun", "tensorboard")
MARKED = {line for path in PAGES for block in session(path) if block.not_run for line in block.lines}
FLAGS_OF_OTHERS = {"--dynamo", "--rehearse", "--fault", "--seconds", "--set"}  # of timm's script, and of ours for tests


def arguments(words: list[str]) -> list[str] | None:
    """What poolzoo gets of a command, if it is one of poolzoo's."""
    if words[0] == "poolzoo":
        return words[1:]
    return words[words.index("poolzoo") + 1 :] if words[0] == "torchrun" else None


def test_shell_sessions_are_fenced_and_marked():
    for page, content in blocks("console"):
        first = content.splitlines()[0]
        known = first.startswith(("$ ", "ignored:", "images of ", "warning:"))  # a command, or a message on its own
        assert known or page.startswith("exports/"), f"{page}: {first}"
    for language in ("sh", "bash", "shell"):
        assert list(blocks(language)) == [], "write ```console, and $ before each command"
    for page, content in blocks(""):  # a drawing
        assert "\n$ " not in content, page
        assert "poolzoo " not in content, page
    for path in PAGES:
        for line in prose(path).splitlines():
            assert not line.startswith(("    poolzoo ", "    $ ", "    pip ", "    make ")), f"{name_of(path)}: {line}"


@pytest.mark.parametrize("line", FENCED, ids=str)
def test_every_fenced_command_is_known_and_parses(line):
    for words in line.commands:
        if (given := arguments(words)) is not None:
            parse(given)
        elif words[:2] == ["python", "-m"]:
            assert words[2].startswith(("benchmarks.", "tests."))
        else:
            assert words[0] in ("python", *EXTERNAL) or line.text in MARKED, f"no test knows what {words[0]} is"


def test_every_inline_command_parses():
    for line in inline("poolzoo"):
        text = line.text.removeprefix("poolzoo ").partition(" > ")[0]
        for name in text.split()[-1].split("|") if text.startswith("plugin ") else [""]:
            words = [*text.split()[:-1], name] if name else text.split()
            with suppress(click.MissingParameter):  # `poolzoo show` in a sentence
                parse([word for word in words if word != "…"])


def test_every_flag_in_the_documents_exists():
    known = options() | FLAGS_OF_OTHERS
    for flag, pages in flags().items():
        assert flag in known, f"{flag} in {', '.join(sorted(pages))}"


def test_every_benchmark_and_its_options_exist():
    shared = "".join(
        (ROOT / "benchmarks" / name).read_text() for name in ("cli/pairs.py", "coverage/jobs.py", "train/peers.py")
    )
    lines = [*inline("python"), *(line for line in FENCED if line.text.startswith("python"))]
    named = [line for line in lines if " -m benchmarks." in line.text]
    assert named
    for line in named:
        _, _, module, *options = line.text.split()
        place = ROOT / module.replace(".", "/")
        source = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text() + shared
        for option in options:
            if option.startswith("--"):
                assert f'"{option}"' in source, line


def test_every_target_of_make_in_the_documents_exists():
    makefile = (ROOT / "Makefile").read_text()
    lines = [*inline("make"), *(line for line in FENCED if line.text.startswith("make"))]
    assert lines
    for line in lines:
        assert f"\n{line.text.split()[1]}:" in makefile, line
