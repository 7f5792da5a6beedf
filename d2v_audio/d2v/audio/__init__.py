"""d2v.audio."""
