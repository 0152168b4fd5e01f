#!/usr/bin/env bash
# Run the whole test suite, two test files at a time: bash scripts/test.sh [--e2e] [options of pytest]
# --e2e runs, instead, the tests that start a MONAI Label server (an environment of 3 GB, made at the first time).
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
