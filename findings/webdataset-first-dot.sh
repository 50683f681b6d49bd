#!/usr/bin/env bash
# webdataset makes one sample of img_0.5.jpg and img_0.7.jpg, and four samples of a.jpg b.jpg a.cls b.cls.
#
# One would guess: the extension is what follows the last dot, as everywhere, and files with the same stem are one
#   sample wherever they stand in the archive.
# What happens: the key ends at the first dot of the file name, so img_0.5.jpg is a field "5.jpg" of sample "img_0", and
#   all files img_0.* that follow each other become one sample. No error is raised: a decoder finds both pictures and a
#   loop over samples sees one. Files with the same stem are joined only next to each other: an archive written by `tar
#   cf x.tar *.jpg *.cls` has twice the samples, each with a picture or a label.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, webdataset 1.0.2.
# Output: img_0.5 and img_0.7: 1 sample [5.cls 5.jpg 7.cls 7.jpg]; a.jpg b.jpg a.cls b.cls: 4 samples
# Hurt: names with a decimal number, a version or a time in them; archives packed by extension. With missing labels
#   allowed, training sees None; a count of samples is wrong.
# Way out: names without dots, and `tar --sort=name`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 pillow==13.0.0 webdataset==1.0.2
venv/bin/python - <<'PY'
import io
import tarfile

import webdataset
from PIL import Image


def samples(names):
    with tarfile.open("shard.tar", "w") as shard:
        for name in names:
            content = io.BytesIO(b"1")
            if name.endswith("jpg"):
                content = io.BytesIO()
                Image.new("RGB", (4, 4)).save(content, "JPEG")
            member = tarfile.TarInfo(name)
            member.size = len(content.getvalue())
            shard.addfile(member, io.BytesIO(content.getvalue()))
    found = webdataset.WebDataset("shard.tar", shardshuffle=False).decode("pil")
    return [(one["__key__"], sorted(field for field in one if not field.startswith("__"))) for one in found]


dotted = samples(["img_0.5.jpg", "img_0.5.cls", "img_0.7.jpg", "img_0.7.cls"])
apart = samples(["a.jpg", "b.jpg", "a.cls", "b.cls"])
sound = samples(["a.cls", "a.jpg", "b.cls", "b.jpg"])
for what, found in (("dots in names", dotted), ("sorted by extension", apart), ("sorted by name", sound)):
    print(f"{what}: {len(found)} samples {found}")
same = dotted == [("img_0", ["5.cls", "5.jpg", "7.cls", "7.jpg"])]
same &= apart == [("a", ["jpg"]), ("b", ["jpg"]), ("a", ["cls"]), ("b", ["cls"])]
same &= sound == [("a", ["cls", "jpg"]), ("b", ["cls", "jpg"])]
raise SystemExit(None if same else "changed: webdataset's grouping of files")
PY
