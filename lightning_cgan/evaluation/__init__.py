"""Proof: judges of images, scores in their eyes, and the protocol that a report follows."""
