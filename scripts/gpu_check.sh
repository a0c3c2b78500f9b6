#!/usr/bin/env bash
# Checks what a GPU does with this package, in at most eight minutes and without a download; see docs/contributing/testing.md:
#
#   scripts/gpu_check.sh [--output FOLDER] [--minutes N] [--data-dir DIR] [--rehearse]
#
# Python is the one in .venv, the environment variable PYTHON, or python3, with rotnet-keras installed.
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-}
if [ -z "$python" ]; then
    python=$scripts/../.venv/bin/python
    [ -x "$python" ] || python=python3
fi
export PYTHONPATH="$scripts${PYTHONPATH:+:$PYTHONPATH}"
# The current folder is not in the import path.
exec "$python" -P -m gpu_check "$@"
