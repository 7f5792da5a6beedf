"""Conversion of the original toolkit's speech models: what its files have in common, 1.0, and fine-tuned ones."""
