#!/usr/bin/env bash
# Runs the tests, two at a time. Needs only Python and pip. Options are passed to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare dev
cd "$root"
export OMP_WAIT_POLICY=passive # otherwise waiting threads keep the cores busy
python -m pytest --numprocesses 2 --dist worksteal "$@"
