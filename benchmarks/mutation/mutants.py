"""Mutants of a file: one place in one function, changed by one of mutmut's operators.

mutmut itself leaves out every decorated function, and collects the tests again for every mutant. Here its operators
change code objects: a function gets the code of its mutant, wherever it is referred to, and no source is copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Final

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

# Types, decorators and defaults are evaluated when a module is imported, before a function can be exchanged.
OUTSIDE: Final = (cst.Annotation, cst.Decorator, cst.Parameters)
AROUND: Final = 24  # characters
COMPOUND: Final = (cst.If, cst.For, cst.While, cst.With, cst.Try, cst.Match, cst.FunctionDef, cst.ClassDef)
UNCHANGED_CALLS: Final = ("len", "isinstance")  # mutmut leaves them: a call without its argument always raises
LETTER: Final = re.compile(r"[^\W\d_]")
STRICT: Final = "strict"  # of zip: an assertion that the lengths agree, or else what zip does without it
ERRORS: Final = ("Error", "Failed", "Problem")  # how names of exceptions end


@dataclass(frozen=True)
class Mutant:
    """A changed place.

    Attributes:
        path: The file.
        function: Qualified name of the outermost function around the place.
        first_line: Where that function begins, with its decorators.
        line: Where the change is.
        lines: Lines whose execution reaches the change.
    """

    path: Path
    function: str
    first_line: int
    line: int
    lines: frozenset[int]
    _module: cst.Module
    _node: cst.CSTNode
    _mutated: cst.CSTNode

    @property
    def before(self) -> str:
        """Source of what changes."""
        return self._shown(self._node)

    @property
    def after(self) -> str:
        """What it becomes."""
        return self._shown(self._mutated)

    def _shown(self, node: cst.CSTNode) -> str:
        return " ".join(self._module.code_for_node(node).split())

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.function}: {_difference(self.before, self.after)}"

    def code(self) -> CodeType:
        """The code of the function with the change.

        Raises:
            SyntaxError: The operator made a program that is none.
        """
        changed = self._module.deep_replace(self._node, self._mutated)
        assert isinstance(changed, cst.Module)
        module = compile(changed.code, str(self.path.absolute()), "exec", dont_inherit=True)
        return next(one for one in codes(module) if place(one) == (self.function, self.first_line))


def place(code: CodeType) -> tuple[str, int]:
    """What identifies a function within a file."""
    return code.co_qualname, code.co_firstlineno


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def _difference(before: str, after: str) -> str:
    """What changes, with a few characters around it."""
    start = _shared(before, after)
    end = _shared(before[start:][::-1], after[start:][::-1])
    shown = [one[max(0, start - AROUND) : len(one) - max(0, end - AROUND)] for one in (before, after)]
    return " → ".join(shown)


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def is_text(node: cst.CSTNode) -> bool:
    """Whether an expression is text for people: words with spaces, some of them computed."""
    match node:
        case cst.SimpleString():
            return _has_words(node.value.strip("\"'rbfRBF "))
        case cst.FormattedString():
            literal = "".join(part.value if isinstance(part, cst.FormattedStringText) else "{}" for part in node.parts)
            return _has_words(literal.strip())
        case cst.ConcatenatedString() | cst.BooleanOperation() | cst.BinaryOperation():
            return is_text(node.left) or is_text(node.right)
        case cst.IfExp():
            return is_text(node.body) or is_text(node.orelse)
    return False


def _has_words(text: str) -> bool:
    return " " in text and LETTER.search(text) is not None


def is_wording(node: cst.CSTNode) -> bool:
    """Whether everything inside is wording: of an error, or of what is computed for a text."""
    if isinstance(node, cst.Call):
        name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
        return isinstance(name, cst.Name) and name.value.endswith(ERRORS)
    return isinstance(node, cst.Raise) or (isinstance(node, cst.FormattedString) and is_text(node))


def is_strictness(call: cst.Call, argument: cst.Arg) -> bool:
    """Whether an argument says of a zip whether it raises where lengths differ."""
    named = argument.keyword is not None and argument.keyword.value == STRICT
    return named and isinstance(call.func, cst.Name) and call.func.value == "zip"


def is_unnoticed(node: cst.CSTNode, mutated: cst.CSTNode) -> bool:
    """Whether what a mutant replaces or leaves out is a text, or the assertion of a zip."""
    if isinstance(node, cst.Call) and isinstance(mutated, cst.Call) and node.func is mutated.func:
        pairs = zip(node.args, (*mutated.args, None), strict=False)
        changed = (old for old, new in pairs if old is not new)
        return next((is_text(old.value) or is_strictness(node, old) for old in changed), False)
    if isinstance(node, cst.Assign | cst.AnnAssign):
        return node.value is not None and is_text(node.value)
    return is_text(node) and isinstance(node, cst.SimpleString)


def _is_true(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Name) and node.value == "True"


def mutants_of(path: Path) -> tuple[list[Mutant], int]:
    """All mutants of a file, and how many were left out because no test of behavior can notice them."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text(encoding="utf-8")), unsafe_skip_copy=True)
    collector = _Collector(path, wrapper.module)
    wrapper.visit(collector)
    return collector.found, collector.left_out


class _Collector(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, path: Path, module: cst.Module) -> None:
        super().__init__()
        self.found: list[Mutant] = []
        self.left_out = 0
        self._path = path
        self._module = module
        self._names: list[str] = []
        self._function: cst.FunctionDef | None = None
        self._statements: list[cst.CSTNode] = []
        self._wording = 0  # how many nodes around are wording
        self._assertions: set[cst.CSTNode] = set()

    def _span(self, node: cst.CSTNode, otherwise: cst.CSTNode | None = None) -> range:
        position = self.get_metadata(PositionProvider, node, None)  # some operators have none
        if position is None:
            assert otherwise is not None
            return self._span(otherwise)
        return range(position.start.line, position.end.line + 1)

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, OUTSIDE):
            return False
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in UNCHANGED_CALLS:
            return False
        if isinstance(node, (cst.SimpleStatementLine, *COMPOUND)):
            self._statements.append(node)
        if isinstance(node, cst.FunctionDef | cst.ClassDef) and self._function is None:
            self._names.append(node.name.value)
            if isinstance(node, cst.FunctionDef):
                self._function = node
                return True
        if isinstance(node, cst.Call):
            self._assertions |= {one for one in node.args if is_strictness(node, one) and _is_true(one.value)}
        if node in self._assertions:
            self.left_out += 1
            return False
        self._wording += is_wording(node)
        if self._function is not None:
            self._mutate(node, self._function)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self._wording -= is_wording(original_node)
        if isinstance(original_node, (cst.SimpleStatementLine, *COMPOUND)):
            self._statements.pop()
        if original_node is self._function:
            self._function = None
            self._names.pop()
        elif isinstance(original_node, cst.ClassDef) and self._function is None:
            self._names.pop()

    def _mutate(self, node: cst.CSTNode, function: cst.FunctionDef) -> None:
        for kind, operator in mutation_operators:
            if not isinstance(node, kind):
                continue
            for mutated in operator(node):
                if self._wording or is_unnoticed(node, mutated):
                    self.left_out += 1
                    continue
                statement = self._statements[-1]
                compound = isinstance(statement, COMPOUND)
                own = self._span(node, statement)
                lines = {*own, self._span(statement).start} if compound else {*self._span(statement)}
                self.found.append(
                    Mutant(
                        path=self._path,
                        function=".".join(self._names),
                        first_line=self._span([*function.decorators, function][0]).start,
                        line=own.start,
                        lines=frozenset(lines),
                        _module=self._module,
                        _node=node,
                        _mutated=mutated,
                    )
                )
