"""`poolzoo plugin new`: writes a plugin that installs and whose tests pass, to be changed into another."""

from __future__ import annotations

import keyword
import re
import sys
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template

from poolzoo._version import __version__
from poolzoo.common.errors import UsageError
from poolzoo.common.files import appearing, require_free, write_atomically
from poolzoo.plugin import spec

_TAKEN = ("poolzoo", "torch", "torchvision", "timm", "numpy", "onnx", "onnxruntime", "tests")  # packages of others
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write(name: str, kind: str, *, single_file: bool, folder: Path) -> Path:
    """Writes a plugin.

    Args:
        name: Of the plugin and of what it provides, such as `my-pool`.
        kind: "pooling", "backbone", "dataset" or "runtime".
        single_file: One file instead of a package.
        folder: Where to write it.

    Returns:
        The file, or the package's folder.

    Raises:
        UsageError: The name cannot be used, or what would be written is there already.
    """
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(module) or len(name) > 60:
        raise UsageError(f"{name!r} cannot be a plugin's name", "use lower-case letters, digits and hyphens: my-pool")
    if keyword.iskeyword(module) or module in (*sys.stdlib_module_names, *_TAKEN):
        raise UsageError(f"a plugin called {name!r} could not be imported", f"its name is taken: call it my-{name}")
    values = {
        "name": name,
        "module": module,
        "kind": kind,
        "description": _DESCRIPTIONS[kind],
        "api": str(spec.API_VERSION),
        "poolzoo": __version__,
        "year": str(datetime.now(UTC).year),
    }
    if single_file:
        target = folder / f"{module}.py"
        require_free(target)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(target, _filled(f"{kind}_single.py", values))
        return target
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": f"{kind}_README.md",
        f"src/{module}/__init__.py": f"{kind}_init.py",
        f"src/{module}/{_PARTS[kind]}.py": f"{kind}_part.py",
        f"tests/test_{module}.py": f"{kind}_test.py",
        "tests/conftest.py": "conftest.py",
        "LICENSE": "LICENSE",
        ".gitignore": "gitignore",
        ".github/workflows/test.yml": "workflow.yml",
    }
    with appearing(folder / name) as made:
        for place, template in files.items():
            path = made / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_filled(template, values), encoding="utf-8")
    return folder / name


_PARTS = {"pooling": "layer", "backbone": "network", "dataset": "images", "runtime": "session"}
_DESCRIPTIONS = {
    "pooling": "A pooling strategy",
    "backbone": "A backbone",
    "dataset": "A data set",
    "runtime": "A runtime",
}


def _filled(template: str, values: dict[str, str]) -> str:
    text = resources.files("poolzoo").joinpath("plugin", "templates", f"{template}.tmpl").read_text(encoding="utf-8")
    return Template(text).substitute(values)
