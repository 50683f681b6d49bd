"""Pages say what the code says: tables of variables and exit codes, generated parts, and names of pages in the code."""

from __future__ import annotations

import ast
import importlib
import re
import sys

import pytest
from support.command_lines import ROOT

from poolzoo.common import errors

DOCS = ROOT / "docs"
ENVIRONMENT = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
READS = ("os.environ.get", "os.environ.setdefault", "os.environ.pop", "os.getenv")
OF_LIBRARIES = {"NO_COLOR", "TERM"}  # which rich reads
GENERATED = {"make_findings": ("explanation", "leaderboard-findings.md")}


def make(name: str):
    """A generator of docs/."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def constants(tree: ast.Module) -> dict[str, str]:
    """The strings that a module gives names to, such as `DEBUG: Final = "POOLZOO_DEBUG"`."""
    found: dict[str, str] = {}
    for node in tree.body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found[target.id] = node.value.value
    return found


def environment_names(tree: ast.AST, known: dict[str, str]) -> set[str]:
    """The variables that a module reads or sets: literals and constants behind `environ`, and those of loops."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in READS:
            found |= strings(node.args[0], known)
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            found |= strings(node.slice, known)
        elif isinstance(node, ast.Compare) and any(ast.unparse(one) == "os.environ" for one in node.comparators):
            found |= strings(node.left, known)
        elif isinstance(node, ast.comprehension) and isinstance(node.iter, ast.Tuple):
            found |= strings(node.iter, known)
    return {name for name in found if re.fullmatch(r"[A-Z]+(_[A-Z]+)*|[a-z]+_proxy", name)}


def strings(node: ast.AST, known: dict[str, str]) -> set[str]:
    """The strings in an expression, and those that its names stand for."""
    found = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    names = {getattr(one, "id", getattr(one, "attr", "")) for one in ast.walk(node)}
    return found | {known[name] for name in names if name in known}


def test_the_table_of_variables_is_that_of_the_code():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "poolzoo").rglob("*.py")]
    trees = [ast.parse(source) for source in sources if "environ" in source or "getenv" in source]
    known = {name: value for tree in trees for name, value in constants(tree).items()}
    read = set().union(*(environment_names(tree, known) for tree in trees))
    table = ENVIRONMENT.split("## Variables that poolzoo reads")[1]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    shown = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert "POOLZOO_DEBUG" in read
    assert read - shown == set(), "they are not in docs/reference/environment.md"
    assert [name for name in shown - OF_LIBRARIES if not any(f'"{name}"' in source for source in sources)] == []


def test_the_table_of_exit_codes_is_that_of_the_errors():
    rows = re.findall(r"^\| (\d+) \|", ENVIRONMENT, re.MULTILINE)
    assert {int(row) for row in rows} == set(errors.EXIT_CODES)


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_table_is_what_its_data_say(name):
    page = DOCS.joinpath(*GENERATED[name]).read_text(encoding="utf-8")
    assert make(name).render(page) == page, f"run python docs/{name}.py"


def test_the_drawing_of_windows_is_what_its_script_draws():
    assert (DOCS / "explanation" / "windows.svg").read_text() == make("make_windows").render()


def test_the_drawn_windows_are_those_of_torch():
    import torch
    from torch.nn import functional as F

    windows = make("make_windows")
    values = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])  # a sum says which values it has
    for given in ((2, 2, 0, False), (3, 2, 0, False), (3, 2, 0, True), (3, 2, 1, False)):
        size, stride, padding, ceil_mode = given
        pooled = F.avg_pool1d(values, size, stride, padding, ceil_mode, count_include_pad=False)[0]
        drawn = windows.sliding(size, stride, padding, ceil_mode=ceil_mode)
        assert pooled.tolist() == pytest.approx([mean(values[0], *one) for one in drawn]), given
    for count in (3, 6):
        drawn = [mean(values[0], *one) for one in windows.adaptive(count)]
        assert F.adaptive_avg_pool1d(values, count)[0].tolist() == pytest.approx(drawn)


def mean(values, first: int, end: int) -> float:
    return values[max(first, 0) : end].mean().item()


def test_the_surprises_are_those_of_the_findings():
    surprises = make("make_surprises")
    pages = surprises.render()
    for name, content in pages.items():
        shown = (DOCS / "surprises" / f"{name}.md").read_text(encoding="utf-8")
        assert shown == content, "run python docs/make_surprises.py"
    every = "".join(pages.values())
    for script in (ROOT / "findings").glob("*.sh"):
        assert every.count(f"findings/{script.name})") == 1
        header = surprises.fields(script.read_text(encoding="utf-8"))
        assert set(header) == set(surprises.FIELDS), script.name
    assert set(surprises.FINDINGS) <= {script.stem for script in (ROOT / "findings").glob("*.sh")}


def test_pages_that_the_code_names_exist():
    """Hints, docstrings and comments name pages by their path in the repository."""
    sources = [path for folder in ("poolzoo", "benchmarks", "tests", "docs") for path in (ROOT / folder).rglob("*.*")]
    for path in sources:
        if path.suffix in (".py", ".sh", ".tmpl"):
            for name in re.findall(
                r"(?<![\w/.])docs/[\w/-]+\.(?:md|json|html|png|svg)\b", path.read_text(encoding="utf-8")
            ):
                assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} names {name}"
