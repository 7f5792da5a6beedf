"""Texts with labels, one or a pair a line: files, columns, splits, and batches of token ids."""
