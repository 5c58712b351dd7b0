#!/usr/bin/env bash
# Generates a sheet with each of two trained generators, then trains one on scikit-learn's handwritten digits. Needs only
# Python and pip. Options are passed to `fit`.
set -euo pipefail
here="$PWD"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
active="${VIRTUAL_ENV:-}"
prepare ""
cd "$root"
export WANDB_MODE="${WANDB_MODE:-disabled}" # a first try should not appear on a dashboard
mkdir -p runs
for name in mnist fashion_mnist; do
    python -m lightning_cgan generate "$name" --count 10 --out "runs/$name.png" --overwrite
done
python -m lightning_cgan fit --config digits "$@"
at="$root/"
[ "$here" != "$root" ] || at=""
activate=""
[ -n "$active" ] || activate="source ${at}.venv/bin/activate; "
page="$(find runs -name index.html -newer runs/mnist.png | head -n 1)"
echo
echo "Trained generators come with the package; ten images of each class: ${at}runs/mnist.png, ${at}runs/fashion_mnist.png"
[ -z "$page" ] || echo "Your first run, as a page for a browser: $at$page"
echo "Next: ${activate}python -m lightning_cgan generate mnist --labels 7 --count 16 --out sevens.png"
