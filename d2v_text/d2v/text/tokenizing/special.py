"""Ids of the special tokens, the same in all text models of data2vec; the id of `<mask>` is the last one."""

BOS, PADDING, EOS, UNKNOWN = range(4)
FIRST = 4
"""Ids of `<s>`, `<pad>`, `</s>` and `<unk>`, and the first id of a piece of text."""
NAMES = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
