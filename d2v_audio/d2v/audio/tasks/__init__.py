"""Tasks of speech and other audio models."""
