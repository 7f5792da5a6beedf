"""Recordings: where they are found, how they are read and labelled, and how batches are made of them."""
