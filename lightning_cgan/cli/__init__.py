"""The command line: Lightning's commands, and `generate`, `invert`, `export` and `demo`."""
