#!/usr/bin/env bash
# Run the whole test suite: bash scripts/test.sh [options of pytest]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/env.sh
. "$here/env.sh"
ensure_env test

cd "$(dirname "$here")"
python -m pytest "$@"
