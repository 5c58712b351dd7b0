"""Modules that all others may use, and that import none of them: errors, random numbers, images, files, configs."""
