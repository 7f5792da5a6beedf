"""A transformer language model of words, as the original toolkit trains them (Vaswani et al. 2017, decoder only)."""

import math

import torch
from torch import Tensor, nn

from d2v.core.nn import TransformerEncoder
from d2v.core.nn.block import Activation, NormForm

_FIRST_POSITION = 2  # of the toolkit's sinusoids: positions follow the number of the padding symbol, 1


class TransformerLM(nn.Module):
    """Log-probabilities of the next word: embedding times sqrt(d) plus sinusoids, causal blocks, linear layer.

    Args:
        num_words: v, size of the dictionary.
        embed_dim: d, the width; even.
        depth: number of blocks.
        num_heads: h, divides d.
        mlp_ratio: width of the feed-forward network as a multiple of d.
        activation: of the feed-forward network.
        norm: "post" or "pre".
        norm_out: whether there is a norm after the last block (pre-norm models).

    Raises:
        ValueError: if d is odd or below 4, or not divisible by h.

    >>> lm = TransformerLM(num_words=10, embed_dim=8, depth=1, num_heads=2)
    >>> lm(torch.zeros(3, 5, dtype=torch.long)).shape
    torch.Size([3, 5, 10])
    """

    def __init__(
        self,
        *,
        num_words: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        activation: Activation = "relu",
        norm: NormForm = "post",
        norm_out: bool = False,
    ) -> None:
        super().__init__()
        if embed_dim % 2 or embed_dim < 4:
            raise ValueError(f"embed_dim={embed_dim} must be even and at least 4, for sines and cosines")
        self.embedding = nn.Embedding(num_words, embed_dim)
        self.encoder = TransformerEncoder.stack(
            embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            activation=activation,
            norm=norm,
            norm_eps=1e-5,
            norm_out=nn.LayerNorm(embed_dim) if norm_out else None,
        )
        self.proj = nn.Linear(embed_dim, num_words, bias=False)

    def forward(self, words: Tensor, last: Tensor | None = None) -> Tensor:
        """Return log-probabilities of the word after each position `b t v`.

        Args:
            words: Long `b t`, numbers of words; the first is the end of the sentence before.
            last: Long `b`, the only position wanted of each row, if not all are; positions after it are not read, so
                they may be padding. The result is then `b v`.
        """
        length, width = words.shape[1], self.embedding.embedding_dim
        x = self.embedding(words) * math.sqrt(width) + sinusoids(length, width).to(self.proj.weight)
        causal = torch.ones(1, 1, length, length, dtype=torch.bool, device=words.device).tril()
        x = self.encoder(x, bias=lambda _: causal)
        if last is not None:
            x = x[torch.arange(len(x), device=x.device), last]
        scores: Tensor = self.proj(x).float().log_softmax(-1)
        return scores


def sinusoids(length: int, width: int) -> Tensor:
    """Sines, then cosines, of positions from 2 on, `t d`.

    >>> sinusoids(3, 4).shape
    torch.Size([3, 4])
    """
    half = width // 2
    rates = torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1)))
    angles = torch.arange(_FIRST_POSITION, _FIRST_POSITION + length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
