"""d2v.vision."""
