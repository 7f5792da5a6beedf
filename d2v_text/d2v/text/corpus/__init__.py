"""Text for pretraining: text files, packed token files, and the blocks of tokens that models read."""
