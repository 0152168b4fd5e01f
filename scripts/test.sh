#!/usr/bin/env bash
# Run the whole test suite, two test files at a time: bash scripts/test.sh [--e2e] [options of pytest]
# --e2e runs, instead, the tests that need an environment of their own, made at the first time: a MONAI Label server
# (3 GB), an MLflow server (0.5 GB), and a stranger's, who has the packed bundles only (1.2 GB).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/env.sh
. "$here/env.sh"
if [ "${1:-}" = --e2e ]; then
    shift
    set -- -m e2e -s "$@" # -s: they say what they measure
else
    set -- -n 2 --dist loadscope "$@"
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a core for each
fi
ensure_env test

cd "$(dirname "$here")"
python -m pytest "$@"
