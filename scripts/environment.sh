# Sourced by the other scripts: finds or makes a virtual environment, and installs the package in it once.
#
#   prepare EXTRA    installs the package with that extra ("" for none) unless it is already installed

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() {
    echo "error: $*" >&2
    exit 2
}

prepare() {
    local extra="$1" state stamp
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        if [ ! -f "$root/.venv/bin/activate" ]; then
            command -v python3 > /dev/null || fail "python3: not found; install Python 3.10 or newer"
            echo "Making a virtual environment in $root/.venv"
            python3 -m venv --clear "$root/.venv" || fail "python3 -m venv failed; Debian and Ubuntu have it in python3-venv"
        fi
        # shellcheck disable=SC1091
        source "$root/.venv/bin/activate"
    fi
    python -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "Python: expected 3.10 or newer, got $(python --version); make a virtual environment with a newer one"
    # What was installed, and from where; if either changes, it is installed again.
    state="$root $(cksum < "$root/pyproject.toml")"
    stamp="$VIRTUAL_ENV/.lightning_cgan"
    if [ "$(cat "$stamp-$extra" 2> /dev/null || cat "$stamp-dev" 2> /dev/null)" != "$state" ]; then
        echo "Installing lightning_cgan into $VIRTUAL_ENV (a few minutes, once)"
        python -m pip install --quiet --disable-pip-version-check --editable "$root${extra:+[$extra]}" ||
            fail "pip could not install the package; see its messages above"
        echo "$state" > "$stamp-$extra"
    fi
}
