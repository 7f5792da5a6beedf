"""Tasks of image models."""
