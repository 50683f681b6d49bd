"""The public Python API as text, a line a name: what tests/data/public_api.txt keeps.

PYTHONPATH=tests python -m support.public_api   # writes the file anew, after a change that is meant
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import ModuleType

KEPT = Path(__file__).parents[1] / "data" / "public_api.txt"


def lines() -> list[str]:
    """Names of `poolzoo` and `poolzoo.testing`: signatures of functions, members of classes, kinds of values; hooks."""
    import poolzoo
    import poolzoo.testing
    from poolzoo.plugin import spec

    hooks = [f"hook {name}{_signature(value)}" for name, value in vars(spec).items() if name.startswith("poolzoo_")]
    return [line for module in (poolzoo, poolzoo.testing) for line in _of_module(module)] + hooks


def _of_module(module: ModuleType) -> Iterator[str]:
    for name in sorted(module.__all__):
        full, value = f"{module.__name__}.{name}", getattr(module, name)
        if inspect.isclass(value):
            yield f"{full}({_bases(value)})"
            yield from (f"{full}.{line}" for line in _members(value))
        elif inspect.isroutine(value):
            yield f"{full}{_signature(value)}"
        else:
            yield f"{full}: {type(value).__name__}"


def _bases(kind: type) -> str:
    """Public bases. Which class a name comes from is no promise."""
    return ", ".join(base.__name__ for base in kind.__bases__ if base is not object)


def _members(kind: type) -> Iterator[str]:
    """Fields with their types, then methods and properties, with those of bases in poolzoo."""
    own = {one.name: f"{one.type}{_default(one)}" for one in fields(kind)} if is_dataclass(kind) else {}
    yield from (f"{name}: {type_}" for name, type_ in own.items())
    found = {}
    for base in reversed(kind.__mro__):
        if base.__module__.partition(".")[0] == "poolzoo":
            found |= vars(base)
    for name, value in sorted(found.items()):
        if (name.startswith("_") and name != "__init__") or name in own or (name == "__init__" and own):
            continue
        if isinstance(value, property):
            yield f"{name} -> {inspect.signature(value.fget).return_annotation}"
        elif isinstance(value, staticmethod | classmethod):
            yield f"{name}{_signature(value.__func__)}"
        elif inspect.isroutine(value):
            yield f"{name}{_signature(value)}"
        else:
            yield f"{name}: {type(value).__name__}"


def _default(field: Field[object]) -> str:
    """A field with a default may be left out."""
    return "" if field.default is MISSING and field.default_factory is MISSING else " = …"


def _signature(function: object) -> str:
    return str(inspect.signature(function)).replace("'", "")  # type: ignore[arg-type]


if __name__ == "__main__":
    KEPT.write_text("\n".join(lines()) + "\n", encoding="utf-8")
