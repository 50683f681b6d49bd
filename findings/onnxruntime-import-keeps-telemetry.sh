#!/usr/bin/env bash
# Importing onnxruntime from its Linux wheel makes a database of telemetry events and a device ID in the home.
#
# One would guess: telemetry is a matter of the Windows builds, and importing a package writes nothing.
# What happens: the wheel holds Microsoft's 1DS client. `import onnxruntime` alone makes a device ID and an SQLite
#   database under ~/.cache/Microsoft/DeveloperTools/.onnxruntime, and a file `.ses` with a time and an ID in TMPDIR.
#   Sessions add events, which wait there to be sent. `disable_telemetry_events()` comes too late: all is there by then.
#   The files lie in XDG_CACHE_HOME or HOME, so a read-only or shared home has them too.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, onnxruntime 1.31.1 and 1.32.0.
# Output: import: .ses, deviceid, onnxruntime.db; events after a session: some
#   import, then disable_telemetry_events(): .ses, deviceid, onnxruntime.db
#   ORT_DISABLE_TELEMETRY=1: nothing
# Hurt: whoever runs models of others on machines that must tell nobody; tests that check what is left behind; images
#   of containers that hold one device ID for all their copies.
# Way out: ORT_DISABLE_TELEMETRY=1 in the environment before the import. Privacy.md in the wheel says so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cat > run.py <<'PY'
import sys

import onnxruntime

if "disable" in sys.argv:
    onnxruntime.disable_telemetry_events()
if "session" in sys.argv:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": [1.0]})
PY
left() { # left NAME WORDS…: the files that a process leaves in an empty home and an empty TMPDIR
  name=$1 && shift
  mkdir -p "$name/home" "$name/tmp"
  env -u XDG_CACHE_HOME HOME="$PWD/$name/home" TMPDIR="$PWD/$name/tmp" venv/bin/python run.py "$@" > /dev/null
  find "$name" -type f -printf '%f\n' | sed '/-wal$/d; /-shm$/d' | sort | paste -sd ' '
}
unset ORT_DISABLE_TELEMETRY
imported=$(left imported)
disabled=$(left disabled disable)
left session session > /dev/null
events=$(venv/bin/python -c "
import glob, sqlite3
(path,) = glob.glob('session/home/.cache/Microsoft/DeveloperTools/.onnxruntime/onnxruntime.db')
print(sqlite3.connect(path).execute('select count(*) from events').fetchone()[0])")
export ORT_DISABLE_TELEMETRY=1
nothing=$(left off session)
echo "import: $imported; events after a session: $events"
echo "disable_telemetry_events(): $disabled"
echo "ORT_DISABLE_TELEMETRY=1: ${nothing:-nothing}"
[ "$imported" = ".ses deviceid onnxruntime.db" ] && [ "$disabled" = "$imported" ] && [ -z "$nothing" ] && [ "$events" -gt 0 ] ||
  { echo "this has changed" >&2; exit 1; }
