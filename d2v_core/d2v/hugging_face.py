"""Encoders of this package as a class of the transformers package, which `import d2v.hugging_face` registers.

`d2v convert MODEL encoder --to hugging-face` writes such a folder for models that the transformers package has no class
of. Nothing in it is executed: its configuration names classes of installed packages only.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from d2v.core.files.own_class import MODEL_TYPE, PREFIX, encoder_description
from d2v.core.modality import modalities
from d2v.core.model import Backbone, Batch, Encoded, Student
from d2v.core.nn import LayerFeatures
from d2v.core.registry import MissingExtraError
from d2v.core.unfilled import without_values

try:
    from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput
except ImportError as error:
    raise MissingExtraError(
        f"d2v.hugging_face needs transformers: pip install 'd2v[hugging-face]' ({error})", name="transformers"
    ) from error

__all__ = ["D2VConfig", "D2VModel"]


class D2VConfig(PretrainedConfig):  # type: ignore[no-untyped-call]  # the package has types in part only
    """Configuration of an encoder.

    Args:
        d2v: values of the description of the encoder, as in `config.json` of a model folder.
        options: fields of every configuration of the transformers package.

    Raises:
        ConfigError: if a value is unknown, missing or of a wrong type.
    """

    model_type = MODEL_TYPE

    def __init__(self, d2v: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.d2v = dict(d2v or {})
        if self.d2v:  # the package makes an empty configuration to compare with
            student = encoder_description(self.d2v).student
            # Under the names of other configurations, for programs that look for them.
            options |= {"hidden_size": student.embed_dim, "num_hidden_layers": student.depth}
        super().__init__(**options)


class D2VModel(PreTrainedModel):  # type: ignore[no-untyped-call]  # as above
    """An encoder of this package: output and layers as `Encodes` gives them, extra tokens included.

    Args:
        config: its configuration; the weights are initial ones, as of `StudentConfig.build`.

    Raises:
        ConfigError: if a value of the configuration is unknown, missing or of a wrong type.

    >>> from transformers import AutoModel
    >>> model = AutoModel.from_pretrained("encoder")  # doctest: +SKIP
    >>> model(pixel_values=images).last_hidden_state.shape  # doctest: +SKIP
    torch.Size([2, 197, 768])
    """

    config_class = D2VConfig
    base_model_prefix = PREFIX.removesuffix(".")
    _supports_sdpa = True

    encoder: Student

    def __init__(self, config: D2VConfig) -> None:
        super().__init__(config)
        self._description = encoder_description(config.d2v)
        # Tensors that follow from the configuration are in no file. Where weights come from a file, the package makes
        # them without values and expects them again in `_init_weights`.
        self._computed: dict[nn.Module, dict[str, Tensor]] | None = None
        if torch.get_default_device().type == "meta":
            with torch.device("cpu"), without_values():
                self.encoder = self._built()
            self._computed = {
                module: {name: one.clone() for name, one in module.named_buffers(recurse=False)}
                for module in self.encoder.modules()
            }
        else:
            self.encoder = self._built()
        forms = {name: modalities.load(name).input for name in self._description.student.modalities}
        self._inputs = {form.name: name for name, form in forms.items() if form is not None}
        self.main_input_name = next(iter(self._inputs), "input_values")
        self.post_init()  # type: ignore[no-untyped-call]  # as above

    def _built(self) -> Student:
        return self._description.student.build()

    def forward(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **named: Tensor,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Encode a batch.

        Args:
            inputs: raw input `b ...` of the first modality; or give it by its name: `pixel_values`, `input_values` or
                `input_ids`.
            attention_mask: `b raw`, 1 = valid, 0 = padding; None = no padding (text: given by the ids).
            output_hidden_states: whether to return the input of the first block and the output of each block.
            return_dict: False = a tuple.
            named: the input by its name.

        Returns:
            `last_hidden_state` `b (e+t) d`, extra tokens first, and `hidden_states` if they are asked for.

        Raises:
            TypeError: if there is not one input.
        """
        batch = self._batch(inputs, attention_mask, named)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        states = None
        if output_hidden_states:
            encoded, states = self._with_states(batch)
        else:
            encoded = self.encoder.encode(batch)
        if return_dict is False or (return_dict is None and not self.config.return_dict):
            return (encoded.x,) if states is None else (encoded.x, states)
        return BaseModelOutput(last_hidden_state=encoded.x, hidden_states=states)

    def _batch(self, inputs: Tensor | None, attention_mask: Tensor | None, named: Mapping[str, Tensor]) -> Batch:
        given = {name: one for name, one in named.items() if one is not None}
        if inputs is not None:
            given = {self.main_input_name: inputs} if not given else {"inputs": inputs, **given}
        if len(given) != 1 or not given.keys() <= self._inputs.keys():
            raise TypeError(f"give one input, {' or '.join(self._inputs)}, not {', '.join(given) or 'none'}")
        ((name, source),) = given.items()
        padding = None if attention_mask is None else attention_mask == 0
        return Batch(source=source, padding=padding, modality=self._inputs[name])

    def _with_states(self, batch: Batch) -> tuple[Encoded, tuple[Tensor, ...]]:
        depth = self._description.student.depth
        sink = LayerFeatures(range(depth), kind="block")
        if not isinstance(self.encoder, Backbone):
            encoded = self.encoder.encode(batch, sink=sink)
            return encoded, tuple(sink.results[layer] for layer in range(depth))
        tokens = self.encoder.tokens(batch)
        norm = self.encoder.encoder.norm_in
        encoded = self.encoder.encode(batch, tokens=tokens, sink=sink)
        first = tokens.x if norm is None else norm(tokens.x)
        return encoded, (first, *(sink.results[layer] for layer in range(depth)))

    def _init_weights(self, module: nn.Module) -> None:
        if self._computed is None:
            return  # they have the initial values of `build`
        for name, one in module.named_parameters(recurse=False):
            if not getattr(one, "_is_hf_initialized", False):
                raise ValueError(f"the folder has no weights for {name} of a {type(module).__name__}")
        for name, values in self._computed.get(module, {}).items():
            if name in module._non_persistent_buffers_set:
                module.get_buffer(name).copy_(values)


AutoConfig.register(MODEL_TYPE, D2VConfig)
AutoModel.register(D2VConfig, D2VModel)
