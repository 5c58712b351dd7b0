"""The command line: Lightning's commands, and `generate`, `export` and `demo`."""
