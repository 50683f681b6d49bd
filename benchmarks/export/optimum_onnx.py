"""Exports a network of timm with optimum-onnx, in an environment of its own; poolzoo is not needed there.

python optimum_onnx.py FOLDER    FOLDER holds network.json and model.safetensors, and gets model.onnx

Its command line looks for timm's networks on the hub alone, and does not know transformers' wrapper of them; its
function takes them. The last line that is printed is JSON: the versions.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    import timm
    from optimum.exporters.onnx import onnx_export_from_model
    from safetensors.torch import load_file

    folder = Path(sys.argv[1])
    asked = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    network = timm.create_model(asked["name"], num_classes=asked["classes"], exportable=True)  # as its loader does
    network.load_state_dict(load_file(folder / "model.safetensors"))
    height, width = asked["size"]
    onnx_export_from_model(network.eval(), folder, task="image-classification", height=height, width=width)
    print(json.dumps({name: version(name) for name in ("optimum-onnx", "torch", "timm", "transformers")}))


if __name__ == "__main__":
    main()
