#!/usr/bin/env bash
# Runs the tests, two at a time, from nothing but Python and pip. Options are handed on to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare dev
cd "$root"
export OMP_WAIT_POLICY=passive # or threads that wait for others keep the cores from them
python -m pytest --numprocesses 2 --dist worksteal "$@"
