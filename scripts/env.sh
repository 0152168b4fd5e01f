# Sourced by the other scripts: makes .venv with the package and activates it; what is there already is kept.
# Usage: ensure_env EXTRAS   (such as "" or "dicom,itk" or "test")

TORCH="torch==2.13.0" # the version that the suite runs with; a torch that is installed already is kept

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.12 python3.11 python3.10 python3 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null || continue
        printf '%s\n' "$candidate"
        return 0
    done
    printf 'pulmozoo needs Python 3.10, 3.11 or 3.12; none was found. Install one, or set PYTHON=/path/to/python.\n' >&2
    return 1
}

ensure_env() {
    local extras=$1 root python stamp
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    if [ ! -x "$root/.venv/bin/python" ]; then
        python=$(find_python) || return 1
        printf 'Making %s with %s ...\n' "$root/.venv" "$("$python" --version)"
        "$python" -m venv "$root/.venv" || return 1
    fi
    # shellcheck source=/dev/null
    . "$root/.venv/bin/activate" || return 1
    stamp="$root/.venv/.installed-${extras:-base}-$(cksum <"$root/pyproject.toml" | cut -d' ' -f1)"
    [ -f "$stamp" ] && return 0
    if ! python -c 'import torch' 2>/dev/null; then
        printf 'Installing %s (with its GPU libraries this can be several GB) ...\n' "$TORCH"
        python -m pip install --disable-pip-version-check "$TORCH" || return 1
    fi
    printf 'Installing pulmozoo%s ...\n' "${extras:+[$extras]}"
    python -m pip install --disable-pip-version-check -e "$root${extras:+[$extras]}" || return 1
    touch "$stamp"
}
