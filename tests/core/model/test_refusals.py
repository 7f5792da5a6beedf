"""Compositions, batches and masks that do not go together are refused by what they are called."""

import attrs
import pytest
import torch
from building import DIM, FORMER, NEW, WIDTH, ToyAdapterConfig, random_mask, toy_batch, with_student

from d2v.core.loss import RegressionLoss
from d2v.core.masks import Mask, RandomMasker
from d2v.core.model import Data2Vec, MaskedHead
from d2v.core.teacher import EMATeacher

B, T = 4, 8
NOTHING = Mask(hidden=torch.zeros(B, T, dtype=torch.bool))
EVERYTHING = Mask(hidden=torch.ones(B, T, dtype=torch.bool))
UNEQUAL = Mask(hidden=torch.arange(T) < torch.tensor([1, 2, 3, 4])[:, None])
OTHER = with_student(NEW, adapters=NEW.student.adapters | {"other": ToyAdapterConfig()})
WITHOUT_PREDICTOR = attrs.evolve(OTHER, predictors={"other": NEW.predictors["toy"]})
WITHOUT_MASKER = attrs.evolve(NEW, maskers={"toi": RandomMasker(mask_prob=0.5)})
STEPS = {
    "no class token": (attrs.evolve(NEW, cls_weight=0.1), {}, r"cls_weight=0\.1.*'toy'"),
    "nothing hidden in 2.0": (NEW, {"mask": NOTHING}, "no position"),
    "nothing hidden in 1.0": (FORMER, {"mask": NOTHING}, "no position"),
    "all hidden": (NEW, {"mask": EVERYTHING}, "row 0"),
    "unequal counts": (NEW, {"mask": UNEQUAL}, "4 to 7"),
    "mask of other samples": (NEW, {"mask": random_mask(3, 1, T, 2)}, "3 rows"),
    "mask of other positions": (NEW, {"mask": random_mask(4, 1, 7, 2)}, "7 positions"),
    "decoder of kept positions": (with_student(NEW, visible_only=False), {}, r"\(8, 8\).*\(8, 4\).*VisibleDecoder"),
    "head of dropped positions": (with_student(FORMER, visible_only=True), {}, r"\(4, 4\).*\(4, 8\)"),
    "ids of other samples": (NEW, {"ids": torch.arange(3)}, "3 ids"),
    "view of other positions": (NEW, {"view": torch.randn(B, 7, WIDTH)}, r"\(4, 7\)"),
    "view of other samples": (NEW, {"view": torch.randn(3, T, WIDTH)}, r"\(3, 8\)"),
    "unknown modality": (NEW, {"modality": "toyy"}, "adapter.*'toyy'.*'toy'"),
    "no masker": (WITHOUT_MASKER, {"modality": "toy"}, "masker.*'toy'"),
    "no predictor": (WITHOUT_PREDICTOR, {"modality": "toy", "mask": random_mask(B, 1, T, 2)}, "predictor.*'toy'"),
}


@pytest.mark.parametrize(("config", "fields", "message"), STEPS.values(), ids=STEPS)
def test_a_step_of_what_does_not_fit(config, fields, message):
    with pytest.raises(ValueError, match=message):
        config.build()(toy_batch(B, T, **fields), update=0)


@pytest.mark.parametrize("mask", [UNEQUAL, EVERYTHING])
def test_masks_of_any_count_are_fine_where_the_sequence_is_kept(mask):
    out = FORMER.build()(toy_batch(B, T, mask=mask), update=0)
    assert out.sample_size == mask.hidden.sum()
    assert out.loss_sum.isfinite()


@pytest.mark.parametrize("layers", [4, (1, 3), 0, ()])
def test_layers_that_the_encoder_lacks(layers):
    with pytest.raises(ValueError, match=r"targets\.layers="):
        attrs.evolve(NEW, targets=attrs.evolve(NEW.targets, layers=layers)).build()


def test_pixels_that_nothing_predicts():
    model = NEW.build()
    with pytest.raises(ValueError, match=r"pixel_weight=1\.0.*pixel_heads"):
        Data2Vec(model.student, model.teacher, {}, targets=model.targets, loss=RegressionLoss(), pixel_weight=1.0)


def test_a_part_alone_does_not_do_for_several_modalities():
    two = OTHER.student.build()
    for parts in ((MaskedHead(DIM), {}), ({}, RandomMasker(mask_prob=0.5))):
        with pytest.raises(ValueError, match="toy, other"):
            Data2Vec(two, EMATeacher(two, 0.9), *parts)


def test_without_targets_the_student_has_to_tell_its_layers():
    class Foreign(torch.nn.Linear):
        def encode(self, batch, mask=None, **_):
            raise AssertionError

    student = Foreign(2, 2)
    with pytest.raises(ValueError, match="targets"):
        Data2Vec(student, EMATeacher(student, 0.9), MaskedHead(2))
