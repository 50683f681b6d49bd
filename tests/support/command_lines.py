"""Command lines in documents and help texts: where they are, and whether the parser accepts them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from poolzoo import cli
from poolzoo.plugin import loader

ROOT = Path(__file__).parents[2]
PATTERNS = ("*.md", "docs/**/*.md", "plugins/*/README.md", "findings/*.md", "exports/*/README.md", "poolzoo/**/*.md")
PAGES = tuple(path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern)))
# A fenced block, perhaps in a list, and perhaps behind the reason why tests do not run it.
FENCE = re.compile(
    r"^( *)(?:<!-- not run: (?P<reason>.*?) -->\n\n?\1)?```(?P<language>\w*)\n(?P<content>.*?)^\1```$",
    re.MULTILINE | re.DOTALL,
)
SHELL = "console"  # the one language of shell sessions: `$ command`, then its output
SEPARATORS = {"&&", "||", ";", "|", "&", "<", ">", "(", ")"}


@dataclass(frozen=True)
class Line:
    """A command line in a document.

    Attributes:
        page: The document, relative to the repository.
        text: The line without its prompt.
    """

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command in the line, split as a POSIX shell splits them."""
        lexer = shlex.shlex(self.text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        found: list[list[str]] = [[]]
        for word in lexer:
            if word in SEPARATORS:
                found.append([])
            else:
                found[-1].append(word)
        return found


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        language: What stands behind the fence.
        content: The text, without the indentation of the fence.
        not_run: Why tests do not run it; "" if they do.
    """

    language: str
    content: str
    not_run: str

    @property
    def lines(self) -> list[str]:
        """The command lines of a shell session, without their prompts."""
        lines = self.content.replace("\\\n", " ").splitlines()
        return [line.removeprefix("$ ").strip() for line in lines if line.startswith("$ ")]


def session(path: Path) -> list[Block]:
    """The fenced blocks of a document in their order."""
    return [
        Block(found["language"], textwrap.dedent(found["content"]), found["reason"] or "")
        for found in FENCE.finditer(path.read_text(encoding="utf-8"))
    ]


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """A document, relative to the repository."""
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Every fenced block of a language: the document and the content."""
    for path in PAGES:
        yield from ((name_of(path), block.content) for block in session(path) if block.language == language)


def fenced() -> list[Line]:
    """Every command of every shell session, each once for each document; those of exported cards have no prompt."""
    lines = (
        Line(page, line.removeprefix("$ ").strip())
        for page, content in blocks(SHELL)
        for line in content.replace("\\\n", " ").splitlines()
        if line.startswith("$ ") or page.startswith("exports/")
    )
    return list(dict.fromkeys(lines))


def inline(program: str) -> list[Line]:
    """Every command of a program in backticks in the text or in a table."""
    found = (
        Line(name_of(path), " ".join(text.replace("\\|", "|").split()))
        for path in PAGES
        for text in re.findall(rf"`({re.escape(program)}\s[^`]*)`", prose(path))
    )
    return list(dict.fromkeys(found))


def flags() -> dict[str, set[str]]:
    """Every flag in backticks outside of command lines, with the documents that name it."""
    found: dict[str, set[str]] = {}
    for path in PAGES:
        for text in re.findall(r"`(--[^`]*)`", prose(path)):
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text):
                found.setdefault(flag, set()).add(name_of(path))
    return found


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command of poolzoo by its words, nested ones too."""
    root = click.Context(cli.cli)
    for name in cli.COMMANDS:
        found = cli.cli.get_command(root, name)
        assert found is not None
        yield name, found
        if isinstance(found, click.Group):
            yield from ((f"{name} {inner}", one) for inner, one in found.commands.items())


def options() -> set[str]:
    """Every option of every command, as `--out` and `-q`."""
    found = (parameter for _, command in commands() for parameter in command.params)
    return {name for parameter in found for name in (*parameter.opts, *parameter.secondary_opts)}


def parse(words: list[str]) -> click.Context:
    """Parses the words behind `poolzoo`, nested commands included, and runs nothing.

    Raises:
        click.UsageError: An option, a value or a command is unknown.
    """
    command: click.Command = cli.cli
    context = click.Context(command, info_name="poolzoo")
    loader.forget()
    try:
        while isinstance(command, click.Group):
            if not words:
                raise click.UsageError("a command is missing")
            name, *words = words
            found = command.get_command(context, name)
            if found is None:
                raise click.UsageError(f"no command is called {name!r}")
            if isinstance(found, click.Group):
                context = click.Context(found, parent=context, info_name=name)
            command = found
        return command.make_context(command.name, list(words), parent=context)
    finally:
        loader.forget()  # global options such as --plugin change its settings
