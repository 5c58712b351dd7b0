#!/usr/bin/env bash
# Shows sheets of trained generators, then trains one on scikit-learn's handwritten digits; needs only Python and pip.
# Options are passed on to `fit`.
set -euo pipefail
here="$PWD"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
active="${VIRTUAL_ENV:-}"
prepare ""
cd "$root"
export WANDB_MODE="${WANDB_MODE:-disabled}" # a first try belongs on nobody's dashboard
mkdir -p runs
for name in mnist fashion_mnist; do
    python -m lightning_cgan generate "$name" --count 10 --out "runs/$name.png" --overwrite
done
python -m lightning_cgan fit --config digits "$@"
in="$root/"
[ "$here" != "$root" ] || in=""
activate=""
[ -n "$active" ] || activate="source ${in}.venv/bin/activate; "
page="$(find runs -name index.html -newer runs/mnist.png | head -n 1)"
echo
echo "Trained generators that come with the package: ${in}runs/mnist.png, ${in}runs/fashion_mnist.png"
[ -z "$page" ] || echo "Your first run, as a page for a browser: $in$page"
echo "Next: ${activate}python -m lightning_cgan generate mnist --labels 7 --count 16 --out sevens.png"
