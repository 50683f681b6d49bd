#!/usr/bin/env bash
# Pillow opens a TIFF with its size already turned, and its orientation tag still set until the pixels are loaded.
#
# One would guess: an image that is open but not loaded has the stored size with the tag (as JPEG), or the upright size
#   without it.
# What happens: for a TIFF of orientation 5 to 8, Image.open swaps width and height at once, but getexif says 6 until
#   load(), which turns the pixels and removes the tag. Whoever reads headers only and swaps for the tag swaps twice.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, pillow 13.0.0 (10.4.0 opens the stored size).
# Output: stored 16x8, orientation 6: JPEG opens (16, 8) tag 6, loaded (16, 8) tag 6; TIFF opens (8, 16) tag 6, loaded
#   (8, 16) no tag
# Hurt: size tables, crops and buckets by aspect ratio made from headers; image.draft and tile readers.
# Way out: for TIFF take image.size as it is; for the tag call load() or ImageOps.exif_transpose first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pillow==13.0.0
venv/bin/python - <<'PY'
import io

from PIL import Image

ORIENTATION = 0x0112
got = {}
for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    file = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(file, kind, exif=exif.tobytes())
    image = Image.open(file)
    opened = image.size, image.getexif().get(ORIENTATION)
    image.load()
    got[kind] = opened, (image.size, image.getexif().get(ORIENTATION))
    print(f"{kind}: opened {got[kind][0]}, loaded {got[kind][1]}")
same = got.pop("TIFF") == (((8, 16), 6), ((8, 16), None))
same &= all(one == (((16, 8), 6), ((16, 8), 6)) for one in got.values())
raise SystemExit(None if same else "changed: size and orientation of a TIFF agree before it is loaded")
PY
