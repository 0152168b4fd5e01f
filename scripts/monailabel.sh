#!/usr/bin/env bash
# Serve all bundles to 3D Slicer or OHIF: bash scripts/monailabel.sh STUDIES [--port N] [--app DIR] [more options]
# STUDIES is a folder of CTs (NIfTI, NRRD) or the address of a DICOMweb server. MONAI Label gets its own environment,
# .venv-monailabel. The bundles are packed, and unpacked in DIR (out/monailabel): trainings change only what lies there.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
venv="$root/.venv-monailabel"
# Installed without what they require, of which serving needs monailabel_requirements.txt only: no sam2, mlflow, ...
BARE="torchvision==0.28.0 monailabel==0.8.5 itk==5.4.7"
# shellcheck source=scripts/env.sh
. "$here/env.sh"

fail() {
    printf 'pulmozoo: %s\n' "$1" >&2
    exit 1
}

ensure_monailabel() {
    local needed="$here/monailabel_requirements.txt" stamp
    stamp="$venv/.installed-$(printf '%s' "$TORCH $BARE" | cat - "$needed" | cksum | cut -d' ' -f1)"
    [ -f "$stamp" ] && return 0
    printf 'Making %s (about 3 GB, without the GPU libraries of PyTorch) ...\n' "$venv"
    [ -x "$venv/bin/python" ] || "$root/.venv/bin/python" -m venv "$venv"
    printf 'Installing PyTorch and MONAI Label, 1 of 3 ...\n'
    "$venv/bin/python" -m pip install --disable-pip-version-check "$TORCH" numpy==1.26.4 setuptools wheel
    printf 'Installing PyTorch and MONAI Label, 2 of 3 ...\n'
    # shellcheck disable=SC2086  # several words are meant
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps $BARE
    printf 'Installing PyTorch and MONAI Label, 3 of 3 ...\n'
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-build-isolation "$TORCH" -r "$needed"
    if ! "$venv/bin/python" -c 'import torchvision' 2>/dev/null; then
        "$venv/bin/python" "$here/torchvision_without_cuda.py"
        "$venv/bin/python" -c 'import torchvision'
    fi
    touch "$stamp"
}

case "${1:-}" in
"" | -*) fail "no studies were given: expected a folder of CTs or the address of a DICOMweb server" ;;
http://* | https://*) studies=$1 ;;
*)
    [ -d "$1" ] || fail "$1 is no folder: expected a folder of CTs or the address of a DICOMweb server"
    studies=$(cd "$1" && pwd)
    ;;
esac
shift
port=8000
app="$root/out/monailabel"
options=()
while [ $# -gt 0 ]; do
    case "$1" in
    --port | --app)
        [ $# -gt 1 ] || fail "$1 was given without a value"
        if [ "$1" = --port ]; then port=$2; else app=$2; fi
        shift 2
        ;;
    *)
        options+=("$1")
        shift
        ;;
    esac
done
if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    fail "port $port is taken: choose another one with --port"
fi

ensure_env ""
ensure_monailabel

mkdir -p "$app/model"
app=$(cd "$app" && pwd)
cp -R "$venv/monailabel/sample-apps/monaibundle/." "$app"
models=""
for bundle in "$root"/bundles/*/; do
    name=$(basename "$bundle")
    served="$app/model/$name"
    if grep -qs '"tier": "yours"' "$served/configs/metadata.json"; then
        printf 'Keeping %s, which was trained there (remove it to serve that of the repository).\n' "$served"
    else
        zip=$(pulmozoo pack "$bundle" "$app/packed")
        rm -rf "$served"
        python -m zipfile -e "$zip" "$app/model"
    fi
    models="$models${models:+,}$name"
done

printf 'Serving %s on http://127.0.0.1:%s in some seconds; Ctrl-C stops.\n' "$models" "$port"
printf '  3D Slicer: module MONAI Label, server http://127.0.0.1:%s\n' "$port"
case "$studies" in
http*) printf '  OHIF: http://127.0.0.1:%s/ohif/\n' "$port" ;;
*) printf '  OHIF needs the address of a DICOMweb server as STUDIES.\n' ;;
esac
# shellcheck source=/dev/null
. "$venv/bin/activate"
cd "$app"
exec python -m monailabel.main start_server --app "$app" --studies "$studies" --host 127.0.0.1 --port "$port" \
    --conf models "$models" --conf zoo_source local --conf sam2 false ${options[@]+"${options[@]}"}
