"""Hints for wrong keys: misspelt keys, keys of other programs and keys of the original toolkit."""

from collections.abc import Iterable, Sequence

from attrs import frozen

from d2v.core.recipes.original_keys import ENDINGS, KEYS, NOTES, SECTIONS
from d2v.core.suggestions import nearest


@frozen
class _Synonym:
    """Words of other programs for a key; the first of `keys` that the command has is suggested."""

    words: str
    keys: tuple[str, ...]
    note: str = ""


_PRECISION = ("train.precision", "precision")
_SYNONYMS = (
    _Synonym(
        "epochs epoch num_epochs n_epochs max_epochs total_epochs num_train_epochs",
        ("train.max_steps",),
        "it counts updates: an epoch is samples / (train.batch_size * train.accumulate) of them",
    ),
    _Synonym(
        "steps step num_steps n_steps total_steps iterations iters num_iters max_iters max_iter updates max_updates "
        "max_update num_updates",
        ("train.max_steps",),
    ),
    _Synonym("learning_rate base_lr peak_lr max_lr init_lr lr_rate rate", ("optim.lr",)),
    _Synonym("min_learning_rate lr_min eta_min", ("optim.schedule.min_lr",)),
    _Synonym("wd l2", ("optim.weight_decay",)),
    _Synonym("adam_betas opt_betas", ("optim.betas",)),
    _Synonym("adam_eps adam_epsilon opt_eps", ("optim.eps",)),
    _Synonym("warmup_steps warmup_updates warmup_epochs warmup_ratio num_warmup_steps", ("optim.schedule.warmup",)),
    _Synonym("grad_clip clip_grad clip_norm max_norm max_grad_norm gradient_clip_val", ("optim.clip",)),
    _Synonym(
        "bs batch batchsize batch_size_per_gpu per_device_train_batch_size mini_batch minibatch",
        ("train.batch_size", "batch_size"),
    ),
    _Synonym(
        "accum accum_iter accum_steps grad_accum accumulate_grad_batches gradient_accumulation_steps update_freq",
        ("train.accumulate",),
    ),
    _Synonym(
        "gpus gpu num_gpus n_gpus ngpus devices num_devices cuda cuda_device accelerator",
        ("device",),
        "auto, cpu, mps, cuda or cuda:N; a process uses one device",
    ),
    _Synonym("num_threads n_threads nthreads num_cpus cpus omp_num_threads", ("threads",)),
    _Synonym("workers n_workers nworkers dataloader_num_workers data_workers num_proc jobs", ("data.num_workers",)),
    _Synonym("fp16 half amp mixed_precision autocast", _PRECISION, "fp16, bf16, fp32 or auto"),
    _Synonym("bf16 bfloat16 fp32 dtype", _PRECISION, "bf16, fp32 or auto"),
    _Synonym("random_seed manual_seed rng rng_seed random_state", ("seed",)),
    _Synonym(
        "checkpoint ckpt ckpt_path checkpoint_path finetune model_path model_dir model_file model_name_or_path "
        "pretrained pretrained_path restore_file run weights_path",
        ("model",),
        "a run, a model folder, a checkpoint file or a name from `d2v models`",
    ),
    _Synonym("resume_from resume_from_checkpoint auto_resume restart continue", ("resume",), "true = resume in `out`"),
    _Synonym(
        "dataset data_path data_dir datadir data_root dataset_path dataset_dir images image_dir img_dir folder root "
        "input input_dir train_data train_dir",
        ("data.path",),
    ),
    _Synonym(
        "output output_dir outdir out_dir output_path save save_dir save_path run_dir log_dir logdir work_dir workdir",
        ("out",),
    ),
    _Synonym("image_size img_size imgsz input_size crop_size resolution", ("data.size",)),
    _Synonym("in_chans in_channels num_channels channels", ("data.channels",)),
    _Synonym("arch architecture backbone model_name model_type", ("model.student.kind",), "a recipe says the rest"),
    _Synonym("hidden_size hidden_dim width dim d_model", ("model.student.encoder.block.embed_dim",)),
    _Synonym("heads n_heads num_attention_heads", ("model.student.encoder.block.num_heads",)),
    _Synonym("num_layers n_layers num_hidden_layers layers", ("model.student.encoder.depth",)),
    _Synonym("drop_path drop_path_rate stochastic_depth", ("task.drop_path_rate",)),
    _Synonym("seed_model", ("init",), "the weights that a new run starts from"),
    _Synonym("l1_beta", ("model.loss.beta",)),
    _Synonym("target_layers", ("model.targets.layers",)),
    _Synonym("smoothing", ("task.label_smoothing",)),
    _Synonym("mask_ratio masking_ratio", ("mask.mask_prob",)),
    _Synonym("clones num_clones clone_batch", ("model.num_masks",)),
    _Synonym("ema ema_decay ema_decay_init ema_start momentum momentum_teacher", ("model.teacher.schedule.start",)),
    _Synonym(
        "save_every save_steps save_interval save_ckpt_freq ckpt_every checkpoint_interval", ("train.checkpoint_every",)
    ),
    _Synonym("log_interval log_steps logging_steps print_freq log_freq", ("train.log_every",)),
    _Synonym("eval_every eval_steps eval_interval val_every validate_every", ("validation.every",)),
    _Synonym("early_stopping early_stop", ("validation.patience",)),
    _Synonym("k knn num_neighbors n_neighbors neighbors", ("neighbours",)),
    _Synonym("n_labels num_labels few", ("labels",)),
    _Synonym("subset part partition", ("split",)),
    _Synonym("pool", ("pooling", "poolings")),
    _Synonym("layer", ("layers",)),
)
_BY_WORD = {word: synonym for synonym in _SYNONYMS for word in synonym.words.split()}


def unknown_key(key: str, known: Sequence[str]) -> str:
    """The message for a key that does not exist, with the likely one.

    >>> unknown_key("bs", ["train.batch_size", "seed"])
    "unknown key 'bs'; did you mean 'train.batch_size'?"
    >>> unknown_key("optimization.max_update", ["train.max_steps"])
    "unknown key 'optimization.max_update': it is called train.max_steps here"
    """
    renamed = KEYS.get(key) or ENDINGS.get(key.rpartition(".")[2])
    if renamed is not None and renamed.partition("=")[0] in known:
        return f"unknown key {key!r}: it is called {renamed} here"
    if key in NOTES:
        return f"unknown key {key!r}, of the original toolkit: {NOTES[key]}"
    if "." in key and key.split(".")[0] in SECTIONS:
        return f"unknown key {key!r}, of the original toolkit; `d2v recipe NAME` lists all keys"
    meant, note = meant_key(key, known)
    if not meant:
        return f"unknown key {key!r}"
    suggested = " or ".join(map(repr, meant))
    return f"unknown key {key!r}; did you mean {suggested}?" + (f" ({note})" if note else "")


def meant_key(key: str, known: Iterable[str], *, misspelt: bool = True) -> tuple[list[str], str]:
    """The likely keys for a typed one, the best or several equally good ones, and a note on them.

    Args:
        key: as typed, with dashes or without.
        known: existing keys.
        misspelt: whether to consider keys with a similar spelling.

    >>> meant_key("--Learning-Rate", ["optim.lr", "seed"]), meant_key("train.seed", ["optim.lr", "seed"])
    ((['optim.lr'], ''), (['seed'], ''))
    """
    known = list(known)
    key = key.strip().lstrip("-").lower().replace("-", "_")
    if key in known:
        return [key], ""
    last = key.rpartition(".")[2]
    synonym = _BY_WORD.get(last)
    there = [one for one in synonym.keys if one in known] if synonym is not None else []
    if synonym is not None and there:
        return there[:1], synonym.note
    same = [one for one in known if one.rpartition(".")[2] == last]
    if same:
        shallow = min(one.count(".") for one in same)
        return [one for one in same if one.count(".") == shallow][:3], ""
    if not misspelt:
        return [], ""
    if hint := nearest_key(key, known):
        return [hint], ""
    return [one for one in known if nearest_key(last, [one.rpartition(".")[2]])][:1], ""


def nearest_key(key: str, known: Iterable[str]) -> str:
    """The key with the most similar spelling; empty if none is similar.

    >>> nearest_key("optim.lrr", ["optim.lr", "seed"])
    'optim.lr'
    """
    found = nearest(key, known)
    return found.removeprefix("; did you mean ").removesuffix("?").strip("'\"")
