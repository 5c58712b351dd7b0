r"""Searches for inputs on which a reader fails, guided by the lines of the package that they reach.

    pip install atheris hypothesis
    python scripts/fuzz.py tables -runs=20000
    python scripts/fuzz.py bytes_of_checkpoints -max_total_time=600

The inputs are those of `tests/fuzz/test_fuzz.py`. Options after the name are libFuzzer's (such as `-len_control=0
-max_len=4000`, since Hypothesis cannot make an input from a few bytes). If such an input is found, it is printed with
its traceback, and the exit code is not 0.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

READERS = ("tables", "bytes_of_checkpoints")  # the others need what pytest prepares
TESTS = Path(__file__).resolve().parent.parent / "tests"


def main() -> None:
    """Hands the bytes of libFuzzer to the test of a reader."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        sys.exit(f"error: expected one of {', '.join(READERS)}, got {sys.argv[1:2]}; see tests/fuzz/test_fuzz.py")
    sys.path[:0] = [str(TESTS), str(TESTS / "fuzz")]  # `helpers`, and the readers
    with atheris.instrument_imports(include=["lightning_cgan"]):
        import test_fuzz
    test = getattr(test_fuzz, f"test_{sys.argv.pop(1)}")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        atheris.Setup(sys.argv, test.hypothesis.fuzz_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
