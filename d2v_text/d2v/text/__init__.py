"""d2v.text."""
