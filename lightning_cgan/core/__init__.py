"""What every room may use and what imports none: errors, random numbers, images, files, descriptions of objects."""
