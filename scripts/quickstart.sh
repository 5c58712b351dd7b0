#!/usr/bin/env bash
# Trains on scikit-learn's handwritten digits, from nothing but Python and pip. Options are handed on to `fit`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare ""
export WANDB_MODE="${WANDB_MODE:-offline}" # a first try belongs on nobody's dashboard
python -m lightning_cgan fit --config "$root/configs/digits.yaml" --runs_dir "$root/runs" "$@"
