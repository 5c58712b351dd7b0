"""The files of a run: its folder, logs and checkpoints."""
