"""data2vec with a third-party encoder: a Hugging Face RoBERTa with the `encode` method that `Data2Vec` needs.

For another encoder, copy this file and change the two lines that name RoBERTa's modules. `pip install transformers`.
"""

import torch
from torch import Tensor, nn
from transformers import RobertaModel

from d2v.core.masks import Mask
from d2v.core.model import Batch, Encoded, Local, Tokens
from d2v.core.nn import LayerSink


class RobertaEncoder(nn.Module):
    """A RoBERTa that replaces hidden tokens by `<mask>` and passes its layer outputs to a sink.

    Args:
        model: any `RobertaModel`, pretrained or not.
        mask_id: id of `<mask>`.
    """

    def __init__(self, model: RobertaModel, *, mask_id: int) -> None:
        super().__init__()
        self.model = model
        self.mask_id = mask_id

    def encode(
        self,
        batch: Batch,
        mask: Mask | None = None,
        *,
        local: Local | None = None,
        tokens: Tokens | None = None,
        sink: LayerSink | None = None,
    ) -> Encoded:
        """Encode token ids `b t`; see `Encodes`."""
        ids = batch.source
        padding = ids == self.model.config.pad_token_id if batch.padding is None else batch.padding
        if mask is not None:
            views = mask.hidden.shape[0] // ids.shape[0]
            ids, padding = ids.repeat_interleave(views, 0), padding.repeat_interleave(views, 0)
            ids = torch.where(mask.hidden, self.mask_id, ids)
        hooks = [] if sink is None else [self._send(layer, sink) for layer in sorted(sink.wants)]
        try:
            x = self.model(ids, attention_mask=(~padding).long()).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return Encoded(x=x, padding=padding, num_prefix_tokens=0, grid=(ids.shape[1],))

    def _send(self, layer: int, sink: LayerSink) -> torch.utils.hooks.RemovableHandle:
        block = self.model.encoder.layer[layer]
        source = block.output.dense if sink.kind == "ffn" else block

        def hook(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
            sink(layer, output if isinstance(output, Tensor) else output[0], 0)

        return source.register_forward_hook(hook)
