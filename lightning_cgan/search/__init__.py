"""A search for better options: its space, its trials, and its results."""
