#!/usr/bin/env bash
# Saving as AVIF or HEIF with an Exif object loses the orientation, in the file (HEIF) or in the caller's object (AVIF).
#
# One would guess: save(..., exif=exif) and save(..., exif=exif.tobytes()) write the same file, and saving leaves its
#   arguments as they are.
# What happens: pillow-heif writes no rotation for exif=Exif(): the reader resets the tag to 1 and shows the picture
#   lying on its side, while exif=bytes is turned. Pillow's AVIF plugin pops the orientation out of the caller's object:
#   after image.save(avif, exif=image.getexif()) the open image has lost it, so exif_transpose does nothing and the next
#   save as JPEG is not upright.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, pillow 13.0.0, pillow-heif 1.8.1.
# Output: 16x8 with orientation 6: HEIF from Exif() opens 16x8, from bytes 8x16; orientation of the image after save as
#   AVIF: None (JPEG, PNG, WebP, TIFF: 6)
# Hurt: converters and thumbnail services that write several formats of one phone picture.
# Way out: exif=image.getexif().tobytes() in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pillow==13.0.0 pillow-heif==1.8.1
venv/bin/python - <<'PY'
import io

import pillow_heif
from PIL import Image, ImageOps

pillow_heif.register_heif_opener()
ORIENTATION = 0x0112


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return Image.open(file)


def lying():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return saved(Image.new("RGB", (16, 8), "red"), "JPEG", exif=exif.tobytes())


image = lying()
shown = {
    "Exif()": ImageOps.exif_transpose(saved(image, "HEIF", exif=image.getexif())).size,
    "bytes": ImageOps.exif_transpose(saved(image, "HEIF", exif=image.getexif().tobytes())).size,
    "no argument": ImageOps.exif_transpose(saved(image, "HEIF")).size,
}
print("HEIF shown as", shown)
same = shown == {"Exif()": (16, 8), "bytes": (8, 16), "no argument": (8, 16)}
left = {}
for kind in ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"):
    image = lying()
    saved(image, kind, exif=image.getexif())
    left[kind] = image.getexif().get(ORIENTATION), ImageOps.exif_transpose(image).size
print("orientation of the open image after the save, and its size upright:", left)
same &= left.pop("AVIF") == (None, (16, 8)) and set(left.values()) == {(6, (8, 16))}
image = lying()
saved(image, "AVIF", exif=image.getexif().tobytes())
same &= image.getexif().get(ORIENTATION) == 6
raise SystemExit(None if same else "changed: an Exif object keeps its orientation in AVIF or HEIF")
PY
