"""No file of poolzoo or its plugins reads what could run code: an AST walk finds each such call."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    [*(ROOT / "poolzoo").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
)
# Calls that run code which they read, or that are safe in no form.
NEVER = {
    *(
        "eval",
        "exec",
        "__import__",
        "marshal.load",
        "marshal.loads",
        "shelve.open",
        "joblib.load",
        "pandas.read_pickle",
    ),
    *("dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "yaml.load", "yaml.unsafe_load"),
    *("yaml.full_load", "torch.jit.load", "torch.package.PackageImporter", "torch.serialization.add_safe_globals"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp"),
    *("shutil.unpack_archive", "ssl._create_unverified_context", "code.interact", "runpy.run_path", "runpy.run_module"),
    *("http.server.HTTPServer", "http.server.ThreadingHTTPServer", "socketserver.TCPServer", "pickle.load"),
    *(
        "pickle.loads",
        "pickle.Unpickler",
        "multiprocessing.connection.Listener",
        "xml.sax.parse",
        "socket.create_server",
    ),
}
# Methods by their names, whatever they belong to: archives that write where their members say, sockets that listen.
NEVER_METHODS = {"extractall", "listen", "register_custom_ops_library"}
ARCHIVES = {"tarfile", "zipfile"}  # modules beside which `extract` is such a method too
# What an argument must not be.
NEVER_ARGUMENTS = {
    "shell": True,
    "allow_pickle": True,
    "trust_remote_code": True,
    "verify": False,
    "weights_only": False,
}
# Calls with an argument that must be there.
REQUIRED = {
    "torch.load": ("weights_only", True),
    "torch.hub.load_state_dict_from_url": ("weights_only", True),
}
# Names of modules that are no literals: each is one that the user, or a plugin that the user installed, has named.
IMPORTS = {"importlib.import_module", "importlib.util.spec_from_file_location"}
IMPORTERS = {
    *("poolzoo/__init__.py", "poolzoo/cli/__init__.py", "poolzoo/plugin/discovery.py", "poolzoo/plugin/imports.py"),
    *("poolzoo/parity/foreign/module.py", "poolzoo/plugin/entry_points.py", "poolzoo/common/python_file.py"),
}
# Each exception with the reason that makes it none.
ALLOWED = {
    ("poolzoo/common/conform.py", "eval"): "annotations in the source of poolzoo's own classes",
    ("poolzoo/compare/exporting.py", "pickle.load"): "what the parent process has just written to its own pipe",
    ("poolzoo/testing/indexed_datasets.py", "pickle.loads"): "what the line before has pickled",
    (
        "poolzoo/datasets/cifar.py",
        "pickle.Unpickler",
    ): "it admits numpy's arrays alone, of a file whose checksum is known",
}
_WORDS = {name.rpartition(".")[2] for name in (*NEVER, *REQUIRED, *IMPORTS, *NEVER_METHODS, "extract")}
SUSPECT = re.compile(rf"\b({'|'.join((*_WORDS, *NEVER_ARGUMENTS))})\b *[(,)=\n]|import .*({'|'.join(_WORDS)})")


def _names(tree: ast.AST) -> dict[str, str]:
    """What each name of a module stands for, such as `np` for `numpy`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                found[one.asname or one.name.partition(".")[0]] = one.name if one.asname else one.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return "?"


def _is_own(named: ast.expr | None) -> bool:
    """Whether a module is named by a literal, or is one of poolzoo."""
    first = named.values[0] if isinstance(named, ast.JoinedStr) and named.values else named
    return isinstance(first, ast.Constant) and (first is named or str(first.value).startswith("poolzoo."))


def unsafe(text: str, file: str) -> Iterator[tuple[int, str]]:
    """The line of each unsafe call, and its name."""
    if not SUSPECT.search(text):  # parsing all of them would take seconds
        return
    tree = ast.parse(text)
    names = _names(tree)
    never = NEVER_METHODS | ({"extract"} if ARCHIVES & set(names.values()) else set())
    for node in ast.walk(tree):
        used = [_dotted(base, names) for base in node.bases] if isinstance(node, ast.ClassDef) else []
        if isinstance(node, ast.Call):
            used = [_dotted(node.func, names)]
            given = {one.arg: one.value for one in node.keywords}
            for key, wrong in NEVER_ARGUMENTS.items():
                value = given.get(key)
                if value is not None and (not isinstance(value, ast.Constant) or bool(value.value) == wrong):
                    yield node.lineno, f"{used[0]}({key}={ast.unparse(value)})"
            for key, right in [REQUIRED[used[0]]] if used[0] in REQUIRED else []:
                if not (isinstance(given.get(key), ast.Constant) and given[key].value is right):
                    yield node.lineno, f"{used[0]} without {key}={right}"
            named = node.args[0] if node.args else None
            if used[0] in IMPORTS and not _is_own(named) and file not in IMPORTERS:
                yield node.lineno, f"{used[0]}({ast.unparse(named) if named else ''})"
            if isinstance(node.func, ast.Attribute) and node.func.attr in never:
                yield node.lineno, node.func.attr
        for name in used:
            if name in NEVER and (file, name) not in ALLOWED:
                yield node.lineno, name


def test_no_file_holds_an_unsafe_call():
    found = {
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in FILES
        for line, name in unsafe(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    }
    assert found == set()


def test_each_exception_is_still_there():
    for file, name in ALLOWED:
        assert re.search(rf"\b{re.escape(name)}\b", (ROOT / file).read_text(encoding="utf-8")), file


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "import pickle\npickle.load(file)",
        "from pickle import loads as read\nread(b'')",
        "import pickle as p\nclass Mine(p.Unpickler): pass",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch as t\nt.load(path, weights_only=choice)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy\nnumpy.load(path, allow_pickle=given)",
        "import tarfile\nwith tarfile.open(path) as tar:\n    tar.extractall(place)",
        "import zipfile\nzipfile.ZipFile(path).extract('a')",
        "import subprocess\nsubprocess.run(line, shell=True)",
        "import os\nos.system('true')",
        "from yaml import load\nload(text)",
        "import tempfile\ntempfile.mktemp()",
        "from http.server import HTTPServer\nHTTPServer(('', 80), handler)",
        "datasets.load_dataset(name, trust_remote_code=True)",
        "import importlib\nimportlib.import_module(config['module'])",
        "import importlib\nimportlib.import_module(f'{name}.poolzoo')",
        "torch.hub.load_state_dict_from_url(url)",
    ],
)
def test_the_walk_finds_what_it_forbids(text):
    assert list(unsafe(text, "poolzoo/other.py"))


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
        "network.eval()",
        "import tarfile\ntarfile.open(path).extractfile('a')",
        "import pickle\npickle.dumps(1)",
        "import importlib\nimportlib.import_module('math')",
    ],
)
def test_the_walk_admits_what_is_safe(text):
    assert not list(unsafe(text, "poolzoo/other.py"))
