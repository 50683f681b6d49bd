#!/usr/bin/env bash
# timm builds an average-pooled ViT as a feature extractor without its published final norm.
#
# One would guess: global_pool="" gives the same features before pooling, so that the mean of the patch tokens equals
#   the model's own embedding.
# What happens: an average-pooled ViT has its final LayerNorm after the pool (fc_norm). With global_pool="" timm makes
#   one before the pool (norm) instead, drops fc_norm.* of the pretrained file with one log line ("may be expected"),
#   and leaves the new norm as initialized. num_classes=0 alone is right.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, timm 1.0.31, torch 2.14.1.
# Output: loaded norm.weight: all ones; mean of tokens is 3.5 away from the model's embedding; num_classes=0: 0.0
# Hurt: own pooling heads on average-pooled ViTs (MAE, BEiT, EVA02, gap and rope variants): published weights are used
#   without their scale and shift.
# Way out: num_classes=0 and forward_features, then the own pool, then model.fc_norm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 timm==1.0.31 torch==2.14.1 torchvision==0.29.1
venv/bin/python - <<'PY'
import numpy as np
import timm
import torch

torch.manual_seed(0)
published = timm.create_model("test_vit2").eval()
with torch.no_grad():
    for parameter in published.fc_norm.parameters():
        parameter.add_(torch.rand_like(parameter))
torch.save(published.state_dict(), "published.pth")


def load(**options):
    return timm.create_model(
        "test_vit2", pretrained=True, pretrained_cfg_overlay={"file": "published.pth"}, **options
    ).eval()


x = torch.randn(2, 3, 64, 64)
state = {name: value.double().numpy() for name, value in published.state_dict().items()}
with torch.no_grad():
    tokens = published.forward_features(x)[:, published.num_prefix_tokens :].double().numpy()
    mean = tokens.mean(1)
    scaled = (mean - mean.mean(1, keepdims=True)) / np.sqrt(mean.var(1, keepdims=True) + published.fc_norm.eps)
    right = scaled * state["fc_norm.weight"] + state["fc_norm.bias"]  # by hand
    bare = load(global_pool="", num_classes=0)
    features = bare.forward_features(x)[:, bare.num_prefix_tokens :].mean(1).numpy()
    whole = load(num_classes=0)(x).numpy()
fresh = (
    bool((bare.norm.weight == 1).all() and (bare.norm.bias == 0).all()) and type(bare.fc_norm).__name__ == "Identity"
)
print(
    "global_pool='': norm as initialized and no fc_norm:",
    fresh,
    "| off by",
    round(float(np.abs(features - right).max()), 3),
)
print("num_classes=0: off by", float(np.abs(whole - right).max()))
same = fresh and np.abs(features - right).max() > 0.5 and np.allclose(whole, right, atol=1e-4)
raise SystemExit(
    None if same else "changed: timm keeps the published norm of an average-pooled ViT with global_pool=''"
)
PY
