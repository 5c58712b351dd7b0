"""Export of a trained generator to other formats, and loading from them."""
