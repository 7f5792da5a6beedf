"""Fields with the same meaning in both generations of the original toolkit's models, and blocks of its 1.0 models."""

from d2v.core.foreign.config import ForeignConfig
from d2v.core.foreign.rules import Join, Rule, both
from d2v.core.nn.block import Activation
from d2v.core.teacher import EMASchedule
from d2v.core.teacher.targets import TargetNorm

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "relu": "relu",
    "gelu_accurate": "gelu_new",  # despite its name, it is the approximation
    "gelu_fast": "gelu_new",
}


def separate_block_rules(theirs: str, ours: str) -> list[Rule]:
    """Rules of a block whose queries, keys and values are three linear layers."""
    rules: list[Rule] = [
        Join(tuple(f"{theirs}.self_attn.{x}_proj.{part}" for x in "qkv"), f"{ours}.attn.qkv.{part}")
        for part in ("weight", "bias")
    ]
    pairs = (
        ("self_attn.out_proj", "attn.proj"),
        ("self_attn_layer_norm", "norm1"),
        ("fc1", "mlp.0"),
        ("fc2", "mlp.3"),
        ("final_layer_norm", "norm2"),
    )
    return [*rules, *(rule for a, b in pairs for rule in both(f"{theirs}.{a}", f"{ours}.{b}"))]


def read_target_norms(
    model: ForeignConfig, *, layer: tuple[TargetNorm, ...]
) -> tuple[tuple[TargetNorm, ...], tuple[TargetNorm, ...]]:
    """Norms of each layer result and of their mean.

    Args:
        model: the third-party configuration.
        layer: norms of a layer that the model supports, in their order.
    """
    after: tuple[TargetNorm, ...] = ("layer", "instance")
    return (
        tuple(norm for norm in layer if model.get(f"{norm}_norm_target_layer", False)),
        tuple(norm for norm in after if model.get(f"{norm}_norm_targets", False)),
    )


def read_schedule(model: ForeignConfig) -> EMASchedule:
    """The teacher's decay."""
    return EMASchedule(model.get("ema_decay"), end=model.get("ema_end_decay"), anneal=model.get("ema_anneal_end_step"))


def read_activation(model: ForeignConfig) -> Activation:
    """The activation of the blocks."""
    model.refuse_unless("activation_fn", *_ACTIVATIONS)
    return _ACTIVATIONS[model.get("activation_fn", "gelu")]
