"""Packs finished runs of the nano networks into the weights that `--pretrained` starts from, and writes their card.

python docs/make_nano.py RUN [RUN …]

Each run is one of `nano/plain` or `nano/resnet` on the 50,000 training images of CIFAR-10 (here as JPEG copies):

    poolzoo finetune --data folder:PATH --backbone nano/resnet --recipe strong --out RUN

The backbone alone is kept, in half precision; the card says what the run measured, and what is left of its accuracy on
the images kept in the run when the backbone is rounded. A sample of the images that all were trained on is kept beside
the weights, so that `finetune` can tell whether its validation images are among them.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from poolzoo.artifacts import run as runs
from poolzoo.backbones.nano import TRAINED_ON, WEIGHTS
from poolzoo.common import files
from poolzoo.data import digest_sketch, identity
from poolzoo.metrics import classification
from poolzoo.train import inference
from poolzoo.train.device import policy
from poolzoo.train.validation import split_validation

LARGEST = 1_500_000  # bytes of all files together, so that the package stays small


def main() -> None:
    """Packs the runs that are named on the command line."""
    WEIGHTS.mkdir(exist_ok=True)
    found = [_pack(Path(path)) for path in sys.argv[1:]]
    trained_on = [_trained_on(Path(path)) for path in sys.argv[1:]]
    if any(not np.array_equal(each, trained_on[0]) for each in trained_on):
        sys.exit("the runs were trained on different images")
    total = sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors"))
    if not found or total > LARGEST:
        sys.exit(f"{len(found)} runs given, {total:,} bytes of weights: at least one, and at most {LARGEST:,}")
    np.save(TRAINED_ON, trained_on[0])
    files.write_atomically(WEIGHTS / "README.md", _card(found))
    print(f"{total:,} bytes in {WEIGHTS}")


def _trained_on(path: Path) -> np.ndarray:
    """The sample of the images that a run was trained on."""
    train = identity.DataIdentity.load(path / identity.FILE).splits["train"]
    settings = tomllib.loads((path / "run.toml").read_text())
    seed = settings.get("split_seed", settings["seed"])
    return digest_sketch.sketch(train.digests[split_validation(train.labels, seed).train_indices])


def _pack(path: Path) -> dict[str, object]:
    run = runs.load_run(path)
    name = run.config["poolzoo"]["backbone"]
    if name not in ("nano/plain", "nano/resnet"):
        sys.exit(f"{path} is a run of {name}")
    state = {k: v.half() if v.is_floating_point() else v for k, v in run.network.backbone.state_dict().items()}
    files.write_atomically(WEIGHTS / f"{files.slug(name)}.safetensors", save(state, metadata={"format": "pt"}))
    samples = run.samples()
    images, labels = samples["test_images"], samples["test_labels"]

    def accuracy() -> float:
        return classification.accuracy(
            inference.predict_logits(run.network, run.preprocess, images, policy("cpu")), labels
        )

    before = accuracy()
    run.network.backbone.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    measured = json.loads((path / "metrics.json").read_text())
    cfg = run.config["pretrained_cfg"]
    return {
        "name": name,
        "settings": tomllib.loads((path / "run.toml").read_text()),
        "test": measured["test"],
        "seconds": measured["seconds"],
        "environment": json.loads((path / "env.json").read_text()),
        "mean": np.round(cfg["mean"], 4).tolist(),
        "std": np.round(cfg["std"], 4).tolist(),
        "kept": len(labels),
        "before": before,
        "after": accuracy(),
        "parameters": sum(p.numel() for p in run.network.backbone.parameters()),
    }


def _card(found: list[dict]) -> str:
    rows = "\n".join(
        f"| `{f['name']}` | {f['parameters']:,} | {f['settings']['pool']} | {f['settings']['epochs']} | "
        f"{f['seconds']:.0f} | {f['test']['accuracy']:.4f} | {f['before']:.4f} → {f['after']:.4f} on {f['kept']} |"
        for f in found
    )
    names = [f"RUN-{index}" for index, _ in enumerate(found, 1)]
    lines = [f"poolzoo finetune {_arguments(f['settings'])} --out {name}" for f, name in zip(found, names, strict=True)]
    shown = "\n".join(f"$ {line}" for line in lines)
    versions = found[0]["environment"]["versions"]
    return f"""---
library_name: poolzoo
tags: [image-classification, cifar10]
license: apache-2.0
metrics: [accuracy]
---

# Weights of the nano backbones

What `--pretrained` starts `nano/plain` and `nano/resnet` from: the backbones alone, in half precision, as safetensors.

* Data: the training images of the *CIFAR-10 (JPEG copy)*, which are CIFAR-10's images encoded again as JPEG. 45,000 of
  them are training images and 5,000 chose the best epoch. A validation split of CIFAR-10 that you draw later contains
  images that these weights were trained on; `--split-seed 0` holds out those 5,000 again, if the files are the same.
  `trained-on.npy` is a sample of the 45,000, by which `finetune` warns of validation images that are among them.
* Use: a starting point for other small images, and a frozen backbone for comparing heads. Not for production.
* Normalization: mean {found[0]["mean"]}, std {found[0]["std"]}. Local pooling: max, 2 × 2.
* Made with torch {versions["torch"]}, timm {versions["timm"]} on {found[0]["environment"]["cpus"]} CPU cores.

Accuracy is that of the whole network on {found[0]["test"]["n"]:,} test images. The last column is the
accuracy on some of them before and after rounding the backbone to half precision.

| backbone | parameters | pooling | epochs | seconds | accuracy | rounded |
|---|---|---|---|---|---|---|
{rows}

To train them again:

```console
{shown}
$ python docs/make_nano.py {" ".join(names)}
```
"""


def _arguments(settings: dict) -> str:
    """A run's settings as they are typed, less what depends on the machine."""
    left_out = ("data", "device", "threads", "precision", "compile", "plugins")
    words = ["--data folder:PATH"]
    for key, value in settings.items():
        if key in left_out or value is False:
            continue
        words.append(f"--{key.replace('_', '-')}" + ("" if value is True else f" {value}"))
    return " ".join(word for word in words if word != "--feature-cache")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
