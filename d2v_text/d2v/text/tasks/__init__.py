"""Tasks of text models."""
