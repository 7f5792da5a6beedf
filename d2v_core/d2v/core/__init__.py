"""The algorithm of data2vec 2.0 and 1.0 as small pieces: masks, blocks, teacher, composition, training and files.

Nothing here knows a modality: those are portions of the same namespace and register themselves (see `d2v.core.registry`).
"""

__version__ = "0.1.0"
