"""A new public name is a promise: adding one edits this page."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

# `__all__` of each portion and of each of its rooms that has one, sorted.
PUBLIC: dict[str, list[str]] = {
    "d2v.audio": [
        "ConvPositions",
        "WaveformAdapter",
        "WaveformAdapterConfig",
        "WaveformExtractor",
        "WaveformFront",
        "modality",
    ],
    "d2v.core": [
        "Alibi",
        "Backbone",
        "Batch",
        "BlockMasker",
        "CollapseMonitor",
        "ConvDecoder",
        "Data2Vec",
        "Draw",
        "EMASchedule",
        "EMATeacher",
        "InverseBlockMasker",
        "Local",
        "Mask",
        "MaskedHead",
        "ModalityAdapter",
        "MultimaskBatcher",
        "RandomMasker",
        "Registry",
        "RegressionLoss",
        "SpanMasker",
        "TargetAverager",
        "TransformerBlock",
        "TransformerEncoder",
        "VisibleDecoder",
        "evaluate",
        "extract",
        "finetune",
        "fit",
        "load",
        "modalities",
        "plot",
        "predict",
        "pretrain",
        "probe",
        "save",
    ],
    "d2v.core.cli": ["main"],
    "d2v.core.data": [
        "Batches",
        "BrokenSampleError",
        "BudgetPlan",
        "DataConfig",
        "DataError",
        "FixedPlan",
        "KeyedPermutation",
        "Loader",
        "Mixture",
        "Plan",
        "Request",
        "Samples",
        "Splits",
        "Stream",
        "StreamLoader",
        "few_of_each",
        "item_error",
        "item_list",
        "sample_seed",
    ],
    "d2v.core.description": ["Description"],
    "d2v.core.files": [
        "ConfigError",
        "Stored",
        "add_kind",
        "description_from_plain",
        "description_to_plain",
        "from_plain",
        "open_model",
        "save",
        "to_plain",
    ],
    "d2v.core.foreign": [
        "Constant",
        "Converted",
        "Converter",
        "ForeignConfig",
        "ForeignFileError",
        "Join",
        "KeyTable",
        "Layout",
        "Rename",
        "Reshape",
        "Rule",
        "Shapes",
        "Split",
        "StandIn",
        "StoredTensor",
        "Unpacked",
        "both",
        "convert",
        "convert_file",
        "load_tensors",
        "own_parts",
        "read_file",
        "tensors_below",
        "whole_model",
    ],
    "d2v.core.jobs": [
        "Checkup",
        "CheckupError",
        "ReadyModel",
        "SampleFeatures",
        "checkup",
        "evaluate",
        "extract",
        "finetune",
        "load",
        "plot",
        "predict",
        "pretrain",
        "probe",
    ],
    "d2v.core.labels": ["Classes", "LABELS", "Labels", "MultiLabel", "Number", "Symbols"],
    "d2v.core.masks": [
        "BlockMasker",
        "ChannelMasker",
        "Draw",
        "InverseBlockMasker",
        "Mask",
        "Masker",
        "RandomMasker",
        "SpanMasker",
        "cover_spans",
    ],
    "d2v.core.modality": ["Modality", "Quickstart", "Verb", "find_quickstart", "modalities"],
    "d2v.core.model": [
        "AdapterConfig",
        "AdapterParts",
        "AlibiConfig",
        "Backbone",
        "BackboneConfig",
        "Batch",
        "BlockConfig",
        "ContextConfig",
        "ConvDecoderConfig",
        "Data2Vec",
        "Data2VecConfig",
        "Encoded",
        "EncoderConfig",
        "Encodes",
        "ExtraTokens",
        "Local",
        "MaskToken",
        "MaskedHead",
        "MaskedHeadConfig",
        "ModalityAdapter",
        "ModelConfig",
        "MultimaskBatcher",
        "Predictor",
        "PredictorConfig",
        "StepOutput",
        "Student",
        "StudentConfig",
        "TargetsConfig",
        "TeacherConfig",
        "Tokens",
        "TransformerConfig",
        "VisibleDecoder",
    ],
    "d2v.core.nn": [
        "Alibi",
        "Attention",
        "ConvDecoder",
        "Dropout",
        "LayerFeatures",
        "LayerSink",
        "TransformerBlock",
        "TransformerEncoder",
        "initialise",
    ],
    "d2v.core.plots": [
        "hide",
        "learning_curves",
        "mask_gallery",
        "pca_colours",
        "pca_gallery",
        "png",
        "require_plotting",
        "svg",
    ],
    "d2v.core.precision": [
        "AskedPrecision",
        "FeaturePrecision",
        "Precision",
        "autocast",
        "decided",
        "native_precision",
    ],
    "d2v.core.probes": [
        "Accuracy",
        "Case",
        "Features",
        "FewLabelResult",
        "Figures",
        "Labelled",
        "LinearClassifier",
        "LinearResult",
        "POOLINGS",
        "Probing",
        "STRENGTHS",
        "collect_features",
        "draw_labels",
        "encode_layers",
        "few_label_probe",
        "fit_linear",
        "hold_out",
        "knn_accuracy",
        "knn_predictions",
        "linear_probe",
        "nearest_samples",
        "pool_layer",
        "raw_features",
    ],
    "d2v.core.recipes": [
        "FinetuneOptimConfig",
        "FinetuneRecipe",
        "FreezeConfig",
        "MonitorConfig",
        "OptimConfig",
        "PretrainRecipe",
        "ScheduleConfig",
        "TrainConfig",
        "ValidationConfig",
        "as_yaml",
        "parse_overrides",
        "read_recipe",
        "recipe_names",
        "recipe_text",
        "recipe_values",
        "resolved_text",
        "settle",
        "without_path",
    ],
    "d2v.core.registry": ["MissingExtraError", "PluginError", "Registry", "UnknownNameError"],
    "d2v.core.scores": [
        "ClassRow",
        "ClassScorer",
        "ClassScores",
        "MultiLabelScorer",
        "NumberScorer",
        "Scores",
        "SymbolScorer",
    ],
    "d2v.core.task": ["Evaluation", "Scorer", "Task"],
    "d2v.core.teacher": ["EMASchedule", "EMATeacher", "TargetAverager"],
    "d2v.core.train": [
        "BEiTCosineSchedule",
        "BEiTTriPhaseSchedule",
        "BatchSource",
        "CosineSchedule",
        "Fitted",
        "Freeze",
        "Interrupted",
        "JsonLines",
        "LayerDecay",
        "LossScale",
        "MemorySource",
        "MetricSink",
        "NonFiniteError",
        "PolynomialSchedule",
        "Progress",
        "PublishedAdamW",
        "RunFolder",
        "RunFolderError",
        "Schedule",
        "TensorBoard",
        "TriStageSchedule",
        "Validation",
        "fit",
        "parameter_groups",
        "set_rates",
        "set_weight_decay",
    ],
    "d2v.text": ["SentenceClassifier", "TextAdapter", "TextAdapterConfig", "TokenEmbedding", "modality"],
    "d2v.vision": [
        "ImageAdapter",
        "ImageAdapterConfig",
        "ImageClassification",
        "ImageClassifier",
        "ImageDataConfig",
        "LearnedPositions",
        "PatchEmbedding",
        "RelativeBias",
        "SinCosPositions",
        "modality",
        "quickstart",
    ],
    "d2v.vision.builtin": ["DIGITS_CLASSES", "FASHION_MNIST_CLASSES", "digits", "fashion_mnist"],
    "d2v.vision.data": ["ImageDataConfig", "ImageFolder"],
    "d2v.vision.tour": ["Album", "FeatureMaps", "Imagined", "Neighbour", "Neighbours", "View", "page", "quickstart"],
    "d2v.vision.verbs": ["check_images", "export_images"],
}
PORTIONS = ("d2v.core", "d2v.vision", "d2v.audio", "d2v.text")


def children(package: ModuleType) -> list[str]:
    return [module.name for module in pkgutil.iter_modules(package.__path__)]


def packages() -> list[str]:
    found = list(PORTIONS)
    for portion in PORTIONS:
        path = importlib.import_module(portion).__path__
        found += [module.name for module in pkgutil.walk_packages(path, f"{portion}.") if module.ispkg]
    return found


def clashes(modules: list[str], names: dict[str, object]) -> list[str]:
    """Names of functions that a module of the same package bears too: importing the one would hide the other."""
    return sorted(name for name, value in names.items() if inspect.isroutine(value) and name in modules)


@pytest.mark.parametrize("name", PUBLIC["d2v.core"])
def test_every_piece_shows_an_example(name: str) -> None:
    piece = getattr(importlib.import_module("d2v.core"), name)
    if callable(piece):
        assert ">>>" in (piece.__doc__ or "")


def test_every_portion_and_room_is_listed() -> None:
    rooms = set(PORTIONS)
    for portion in PORTIONS:
        modules = [f"{portion}.{name}" for name in children(importlib.import_module(portion)) if name[0] != "_"]
        rooms |= {name for name in modules if hasattr(importlib.import_module(name), "__all__")}
    assert sorted(PUBLIC) == sorted(rooms)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert sorted(names) == PUBLIC[name]
    assert [missing for missing in names if not hasattr(module, missing)] == []


@pytest.mark.parametrize("name", packages())
def test_no_function_bears_the_name_of_a_module_of_its_package(name: str) -> None:
    package = importlib.import_module(name)
    modules = children(package)
    found = clashes(modules, {n: value for n, value in vars(package).items() if n[0] != "_"})
    for child in modules:
        if child != "__main__":
            module = importlib.import_module(f"{name}.{child}")
            own = {
                n: v for n, v in vars(module).items() if n[0] != "_" and getattr(v, "__module__", "") == module.__name__
            }
            found += clashes(modules, own)
    assert found == [], f"{name}: a file must not be named after a public function"


def test_the_clash_check_sees() -> None:
    assert clashes(["fit", "loop"], {"fit": lambda: None, "loop": 1}) == ["fit"]
