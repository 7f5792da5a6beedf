"""data2vec for images."""

from d2v.core.modality import InputForm, Modality
from d2v.vision import timm_form
from d2v.vision.adapter import ImageAdapter
from d2v.vision.config import ImageAdapterConfig, example_images
from d2v.vision.convert import converters
from d2v.vision.data import ImageDataConfig
from d2v.vision.data_commands import check_images, export_images
from d2v.vision.demo import quickstart
from d2v.vision.display import images_of
from d2v.vision.example import example_batch
from d2v.vision.patches import PatchEmbedding
from d2v.vision.positions import LearnedPositions, RelativeBias, SinCosPositions
from d2v.vision.tasks.classification import ImageClassification, ImageClassifier

__all__ = [
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
]

modality = Modality(
    name="vision",
    description="images: patches, masked in blocks",
    extra="d2v[vision]",
    requires=("torchvision", "PIL"),
    adapters={"patches": ImageAdapterConfig},
    data={"images": ImageDataConfig},
    recipes="d2v.vision.recipes",
    catalogue="d2v.vision",
    converters=converters,
    input=InputForm(name="pixel_values", example=example_images),
    exports={"timm": timm_form.FORM},
    tasks={"classification": ImageClassification},
    data_commands={"check-images": check_images, "export-images": export_images},
    quickstart=quickstart,
    images=images_of,
    example=example_batch,
    raw_name="raw pixels",
)
