"""The command line in a process that can import little more than ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys

# Lets nothing be imported but the standard library, poolzoo, `ENOUGH`, and what these import at most.
ALONE = """
import sys

LEFT = {"poolzoo", "onnxruntime", "numpy", "PIL", "click", "pluggy", "rich",
        "pygments", "markdown_it", "mdurl", "google", "flatbuffers", "packaging"}

class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in LEFT and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
from poolzoo.cli import run
code = run(sys.argv[1:])
assert not {"torch", "onnx", "timm", "sklearn", "scipy", "matplotlib", "safetensors", "platformdirs"} & set(sys.modules)
sys.exit(code)
"""


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own that finds little more than ONNX Runtime."""
    command = [sys.executable, "-W", "error", "-c", ALONE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
