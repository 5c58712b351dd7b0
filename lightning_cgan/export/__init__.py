"""A trained generator in formats that others read, and back from them."""
