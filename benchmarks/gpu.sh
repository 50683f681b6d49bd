#!/bin/sh
# What poolzoo does on one machine with a CUDA GPU, in ten minutes and without a network. It writes one JSON file.
#
#   benchmarks/gpu.sh IMAGES [--wheels DIR] [--python PYTHON] [--out FILE] [--target 0.9] [--rehearse]
#
# IMAGES  a folder of JPEGs, train/<class>/ and test/<class>/, such as the CIFAR-10 photographs
# DIR     wheels to install into a temporary folder, made where there is a network, for that machine's Python:
#             pip wheel --wheel-dir DIR '.[test]'
#         Without it, PYTHON has everything already.
# docs/how-to/gpu.md says what the numbers mean.
set -eu
fail() { echo "error: $1" >&2; echo "hint: $2" >&2; exit "${3:-4}"; }

root=$(cd "$(dirname "$0")/.." && pwd)
images= wheels= python=${PYTHON:-python3} rehearse=
[ $# -gt 0 ] || fail "no folder of images is named" "benchmarks/gpu.sh IMAGES --wheels DIR" 2
case $1 in -*) fail "the first argument names a folder of images" "benchmarks/gpu.sh IMAGES --wheels DIR" 2 ;; esac
images=$1
shift
set -- "$@" --end
while [ "$1" != --end ]; do
  option=$1
  shift
  case $option in
    --rehearse) rehearse=yes; set -- "$@" "$option" ;;
    --wheels | --python | --out | --target | --minutes)
      [ "$1" != --end ] || fail "$option needs a value" "see the head of $0" 2
      case $option in
        --wheels) wheels=$1 ;;
        --python) python=$1 ;;
        *) set -- "$@" "$option" "$1" ;;
      esac
      shift ;;
    *) fail "there is no option $option" "see the head of $0" 2 ;;
  esac
done
shift

[ -d "$images/train" ] && [ -d "$images/test" ] || fail "$images holds no train/ and test/" "name a folder of JPEGs"
images=$(cd "$images" && pwd)
command -v "$python" >/dev/null || fail "there is no $python" "--python PYTHON"
if [ -z "$rehearse" ] && ! command -v nvidia-smi >/dev/null && [ ! -e /dev/nvidia0 ]; then
  fail "this machine shows no NVIDIA GPU" "--rehearse runs the same steps on the CPU"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
if [ -n "$wheels" ]; then
  ls "$wheels"/*.whl >/dev/null 2>&1 || fail "$wheels holds no wheel" "pip wheel --wheel-dir $wheels '.[test]'"
  "$python" -m pip install --quiet --no-index --no-deps --target "$work/site" "$wheels"/*.whl ||
    fail "the wheels in $wheels do not fit $("$python" -V)" "make them with the same Python and platform"
  PYTHONPATH=$work/site
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export POOLZOO_CACHE="$work/cache"
missing=$("$python" - <<'CODE'
from importlib.util import find_spec
needed = "torch torchvision timm onnx onnxruntime onnxscript pluggy click rich numpy PIL simplejpeg safetensors sklearn"
needed = [*needed.split(), "scipy", "matplotlib", "plotly", "platformdirs", "latex2mathml", "pytest", "xdist"]
print(*(name for name in needed if find_spec(name) is None))
CODE
)
[ -z "$missing" ] || fail "$python lacks: $missing" "--wheels DIR with their wheels"
cd "$root"
"$python" -m benchmarks.gpu --data "folder:$images" "$@"
