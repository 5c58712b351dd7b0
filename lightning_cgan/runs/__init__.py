"""What a run keeps on disk: its folder, logs and checkpoint files."""
