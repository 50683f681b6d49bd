#!/usr/bin/env bash
# Pillow cannot append an image to a TIFF after that image was saved as JPEG or PNG.
#
# One would guess: save does not change an image, so saving it once says nothing about saving it again.
# What happens: the plugin leaves its encoder's settings in image.encoderconfig. Image.save clears them for the first
#   page of a file only; the pages of append_images hand theirs to the TIFF encoder: "TypeError: function takes at most
#   4 arguments (18 given)". A copy of the image is fine.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, pillow 13.0.0 (10.4.0 is right).
# Output: page saved before as JPEG, MPO, PNG, JPEG2000: TypeError; as WebP, GIF, BMP, TIFF, or not at all: 2 pages
# Hurt: programs that write thumbnails of pages and then the document: the same two lines in the other order work.
# Way out: append_images=[page.copy() for page in pages].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pillow==13.0.0
venv/bin/python - <<'PY'
import io

from PIL import Image


def document(kind, copy=False):
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    if kind:
        pages[1].save(io.BytesIO(), kind)
    file = io.BytesIO()
    try:
        pages[0].save(file, "TIFF", save_all=True, append_images=[pages[1].copy() if copy else pages[1]])
    except TypeError as error:
        return str(error)
    return Image.open(file).n_frames


failing, fine = ("JPEG", "MPO", "PNG", "JPEG2000"), (None, "WEBP", "GIF", "BMP", "TIFF")
got = {kind: document(kind) for kind in failing + fine}
copied = {kind: document(kind, copy=True) for kind in failing}
print("saved before as:", got)
print("and appended as a copy:", copied)
same = all("takes at most 4 arguments" in str(got[kind]) for kind in failing)
same &= all(got[kind] == 2 for kind in fine) and set(copied.values()) == {2}
raise SystemExit(None if same else "changed: an image that was saved before can be appended to a TIFF")
PY
