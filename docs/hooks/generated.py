"""Hook of mkdocs: reference pages made of the code when the site is built: commands, the Python API, JSON files."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

import poolzoo
from poolzoo import cli, testing

PACKAGE = Path(poolzoo.__file__).parent
TYPES = "<!-- the types of artifacts/schema.py -->"


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages."""
    for address, content in (
        ("reference/command-line.md", command_line()),
        ("reference/python.md", python()),
    ):
        files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in the keys of the JSON files."""
    return markdown.replace(TYPES, schema()) if TYPES in markdown else markdown


# --- The command line ----------------------------------------------------------------------------------------------


def command_line() -> str:
    """A section for each command: usage, text, arguments, options."""
    root = click.Context(cli.cli, info_name="poolzoo", terminal_width=100)
    parts = [
        "# Command line\n",
        "This page is generated from the commands. `poolzoo COMMAND --help` prints the same. Results go to stdout,",
        "everything else to stderr. [Exit codes and environment](environment.md) has the rest.\n",
        _options(cli.cli, root, "Options of every command"),
    ]
    for name in cli.COMMANDS:
        command = cli.cli.get_command(root, name)
        assert command is not None
        parts += _sections(command, root, name, 2)
    return "\n".join(parts) + "\n"


def _sections(command: click.Command, parent: click.Context, name: str, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    yield f"\n{'#' * level} {context.command_path}\n"
    yield f"```text\n{command.get_usage(context)}\n```\n"
    yield _text(command.help or "")
    if isinstance(command, click.Group):
        for inner, one in command.commands.items():
            yield from _sections(one, context, inner, level + 1)
    else:
        yield _options(command, context, "")


def _text(text: str) -> str:
    """The help of a command in Markdown: what click must not wrap becomes a block."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.lstrip().startswith("\b"):
            lines = part.lstrip().removeprefix("\b").strip("\n").splitlines()
            least = min(len(line) - len(line.lstrip()) for line in lines)
            parts.append("\n".join(["```text", *(line[least:] for line in lines), "```"]))
        else:
            parts.append(_escaped(" ".join(part.split())))
    return "\n\n".join(parts) + "\n"


def _options(command: click.Command, context: click.Context, title: str) -> str:
    of_all = {parameter.name for parameter in cli.cli.params}
    rows = []
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        if command is not cli.cli and (parameter.name in of_all or parameter.name == "help"):
            continue
        names, help_text = parameter.get_help_record(context) or ("", "")
        shown = _cell(re.sub(r"\s+", " ", names)).replace("`", "")
        rows.append(f"| `{shown}` | {_cell(_escaped(' '.join(help_text.split())))} |")
    if not rows:
        return ""
    head = [f"\n## {title}\n"] if title else []
    return "\n".join([*head, "| option | what it does |", "|---|---|", *rows, ""])


def _escaped(text: str) -> str:
    return re.sub(r"([<>*_\[\]`])", r"\\\1", text).replace("\\<", "&lt;").replace("\\>", "&gt;")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- Python --------------------------------------------------------------------------------------------------------


def python() -> str:
    """The public names of `poolzoo` and `poolzoo.testing`, from their docstrings."""
    parts = [
        "# Python\n",
        "Importing `poolzoo` imports no torch; the functions do. Names that are not on this page are private.\n",
        "## poolzoo\n",
        *(f"::: poolzoo.{poolzoo._MODULES[name]}.{name}\n" for name in sorted(poolzoo._MODULES) if name.islower()),
        *(f"::: poolzoo.{poolzoo._MODULES[name]}.{name}\n" for name in sorted(poolzoo._MODULES) if _class(name)),
        "## poolzoo.testing\n",
        *(f"::: {_home(name)}\n" for name in testing.__all__ if _has_source(getattr(testing, name))),
        "### Suites and lists of checks\n",
        "| name | what it is |",
        "|---|---|",
        *(_row(name, getattr(testing, name)) for name in testing.__all__ if not _has_source(getattr(testing, name))),
    ]
    return "\n".join(parts)


def _has_source(found: object) -> bool:
    """Whether a name stands for a function or a class that is written out, not made by a call."""
    if not (inspect.isfunction(found) or inspect.isclass(found)):
        return False
    source = inspect.getsource(inspect.getmodule(found) or inspect)
    return re.search(rf"^(?:class|def) {found.__name__}\b", source, re.MULTILINE) is not None


def _row(name: str, found: object) -> str:
    if isinstance(found, type):
        return f"| `{name}` | {_cell(_escaped((found.__doc__ or '').strip().splitlines()[0]))} |"
    ids = ", ".join(f"`{check}`" for check in found) if isinstance(found, Iterable) else ""
    return f"| `{name}` | the checks {ids} |"


def _class(name: str) -> bool:
    return not name.islower() and not name.isupper()


def _home(name: str) -> str:
    found = getattr(testing, name)
    return f"{getattr(found, '__module__', testing.__name__)}.{name}"


# --- Files ---------------------------------------------------------------------------------------------------------


def schema() -> str:
    """A table for each type of `artifacts/schema.py`."""
    tree = ast.parse((PACKAGE / "artifacts" / "schema.py").read_text(encoding="utf-8"))
    parts = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
            rows = [f"| `{ast.unparse(item.target)}` | {_annotation(item.annotation)} |" for item in fields]
            bases = [ast.unparse(base) for base in node.bases if ast.unparse(base) != "TypedDict"]
            inherited = f" It also has the keys of {', '.join(bases)}." if bases else ""
            text = " ".join((ast.get_docstring(node) or "").split())
            parts += [f"### {node.name}\n", f"{text}{inherited}\n", "| key | type |", "|---|---|", *rows, ""]
    return "\n".join(parts)


def _annotation(node: ast.expr) -> str:
    text = ast.unparse(node)
    optional = re.fullmatch(r"NotRequired\[(.*)\]", text)
    return f"`{_cell(optional[1])}`, not always there" if optional else f"`{_cell(text)}`"
