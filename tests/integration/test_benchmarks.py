"""The two formulations of a step that the benchmarks compare."""

import dataclasses
import json
import sys
import warnings
from itertools import count, product
from pathlib import Path
from unittest import mock

import attrs
import pytest
import torch
from scripts import loaded
from torch.utils.flop_counter import FlopCounterMode

from d2v.core import Batch, Data2Vec
from d2v.core.nn import DistanceBias, kernels
from d2v.core.nn.linear import has_onednn_linear

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import inference  # noqa: E402 - outside the package
import step as benchmark  # noqa: E402 - outside the package
from distance_bias import steps_of  # noqa: E402 - outside the package
from flops import flops_of  # noqa: E402 - as above
from formulations import Case, library_step, plain_model, plain_step  # noqa: E402 - as above
from padding import batches_of, updates_of  # noqa: E402 - as above
from phases import PHASES, Phases  # noqa: E402 - as above
from step import timed  # noqa: E402 - as above
from windows import differences  # noqa: E402 - as above

loop = loaded("benchmarks/loop.py")
gpu = loaded("benchmarks/gpu.py")  # the name alone would be the folder tests/gpu

CASES = ["vision/base", "vision/large", "vision/huge14", "audio/base", "audio/large", "text/base", "text/large"]


def without_chance(case: Case) -> Case:
    """The same without dropout and noise, which differ between two runs."""
    config, modality = case.config, case.modality
    none = dict.fromkeys(("attention_dropout", "projection_dropout", "dropout"), 0.0)
    encoder = attrs.evolve(
        config.student.encoder, block=attrs.evolve(config.student.encoder.block, **none), layer_drop=0.0
    )
    adapter = config.student.adapters[modality]
    if adapter.context is not None:
        adapter = attrs.evolve(adapter, context=attrs.evolve(adapter.context, dropout=0.0, layer_drop=0.0))
    if modality == "text":
        adapter = attrs.evolve(adapter, embedding_dropout=0.0)
    decoder = attrs.evolve(config.predictors[modality], dropout=0.0, noise_std=0.0)
    student = attrs.evolve(config.student, encoder=encoder, adapters={modality: adapter})
    return attrs.evolve(case, config=attrs.evolve(config, student=student, predictors={modality: decoder}))


@pytest.mark.parametrize("name", CASES)
def test_both_formulations_compute_the_same_loss(name: str) -> None:
    import plain

    case = without_chance(Case.of(name, toy=True))
    model, foreign, student, teacher = plain_model(case, "cpu")
    source = case.samples(2)
    batch = Batch(source=source)
    mask = model.mask(batch, case.positions(source), update=0)
    theirs = plain.forward(foreign, student, teacher, {"source": source, "mask": mask.hidden})
    ours = model.train()(batch, update=0)
    assert ours.sample_size == int(theirs["sample_size"])
    torch.testing.assert_close(ours.loss_sum / ours.sample_size, theirs["loss.total"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vision/base", "audio/base", "text/large"])
def test_steps_run(name: str) -> None:
    case = Case.of(name, toy=True)
    for step in (library_step(case, 2, "cpu"), plain_step(case, 2, "cpu", precision="bf16")):
        step()
        step()


def test_padded_and_sorted_recordings_train_the_same_model() -> None:
    variants = batches_of(2, long=0.5, short=0.25)
    assert all(
        sum(int((~b.padding).sum()) if b.padding is not None else b.source.numel() for b in batches) == seen
        for batches, seen in zip(variants.values(), [12_000, 12_000, 16_000], strict=True)
    )
    times = timed(updates_of(Case.of("audio/base", toy=True), variants), 1)
    assert {name: len(values) for name, values in times.items()} == {"padded": 1, "sorted": 1, "full": 1}


def test_difference_of_windows_is_over_the_frames_of_long_recordings() -> None:
    whole = torch.ones(2, 3, 4)
    padding = torch.tensor([[False, False, True], [False, True, True]])
    windowed = whole * torch.tensor([1.0, 1.5, 9.0])[:, None]
    found = differences(whole, windowed, padding, longer_than=1)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5]))


def test_the_step_with_the_full_bias_gives_attention_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    given: set[type] = set()
    choose = kernels.attention_form

    def recorded(q: torch.Tensor, mask: object, dropout: float) -> str:
        given.add(type(mask))
        return choose(q, mask, dropout)

    monkeypatch.setattr(kernels, "attention_form", recorded)
    steps = steps_of(Case.of("audio/base", toy=True), 2, padded=True, seconds=0.5)
    for name, kind in {"parts": DistanceBias, "full": torch.Tensor}.items():
        given.clear()
        steps[name]()
        assert given == {kind}


def test_the_form_of_attention_is_reported() -> None:
    assert gpu.attention_forms(library_step(Case.of("audio/base", toy=True), 2, "cpu")) == "fused, lean"
    assert "lean" not in gpu.attention_forms(library_step(Case.of("vision/base", toy=True), 2, "cpu"))


@pytest.mark.parametrize("name", ["vision/base", "audio/base", "text/base", "text/large"])
def test_flops_by_formula_are_those_of_the_forward_pass(name: str) -> None:
    """Torch counts forward passes of convolutions right. It does not know the library's own attention."""
    case = without_chance(Case.of(name, toy=True))
    model = case.config.build().requires_grad_(False).train()
    batch = Batch(source=case.samples(2))
    batch = dataclasses.replace(batch, mask=model.mask(batch, case.positions(batch.source), update=0))
    assert batch.mask is not None
    flops = flops_of(case, 2, batch.mask)
    with (
        mock.patch.object(kernels, "attention_form", return_value="products"),
        FlopCounterMode(display=False) as counter,
    ):
        model(batch, update=0)
    forward = flops.front + flops.positions + flops.student + flops.decoder
    assert counter.get_total_flops() == pytest.approx(forward + flops.teacher, rel=1e-9)
    assert flops.update == 3 * forward + flops.teacher


def test_phases_of_a_step_are_those_of_its_parts() -> None:
    """With a clock that counts its readings, each phase takes as many as it reads itself."""
    phases, models = Phases(count().__next__), list[Data2Vec]()
    step = library_step(Case.of("vision/base", toy=True), 2, "cpu", prepare=models.append, phase=phases.phase)
    step()
    assert not phases.seconds
    phases.watch(models[0])
    step()
    assert set(phases.seconds) == set(PHASES)
    assert phases.seconds["teacher"] > phases.seconds["front"] == 1  # targets are read while the teacher runs


def test_the_benchmark_prints_an_object_for_each_model_and_precision(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"peak_gib": 2.0, "above_gib": 1.0}
    arguments = [
        "step.py",
        "--toy",
        "--steps",
        "1",
        "--models",
        "vision/base,text/base",
        "--precisions",
        "bf16",
        "--json",
    ]
    with mock.patch.object(benchmark, "memory", return_value=found), mock.patch.object(sys, "argv", arguments):
        benchmark.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["model"], row["precision"]) for row in rows] == [("vision/base", "bf16"), ("text/base", "bf16")]
    for row in rows:
        assert row["library"].keys() == row["plain"].keys() == {"seconds", "peak_gib", "above_gib"}
        assert row["ratio_seconds"] == row["library"]["seconds"] / row["plain"]["seconds"]
        assert row["ratio_above"] == 1
        assert row["phases"].keys() == set(PHASES)
        assert row["kernels"] == ["plain"]
        assert row["waits"] == 1


def test_memory_is_measured_with_the_same_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["step.py", "--toy", "--checkpoint-activations", "--depth", "3", "--steps", "1"])
    args = benchmark.parsed()
    done = mock.Mock(return_value=mock.Mock(stdout='{"peak_gib": 1.0}'))
    monkeypatch.setattr(benchmark.subprocess, "run", done)
    benchmark.memory(args, "text/base", "bf16", "plain")
    monkeypatch.setattr(sys, "argv", done.call_args[0][0][1:])
    same = {**vars(args), "models": "text/base", "precisions": "bf16", "memory_of": "plain"}
    assert vars(benchmark.parsed()) == same


def test_activations_are_checkpointed_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["step.py", "--toy", "--checkpoint-activations", "--kernels", "plain"])
    args, models = benchmark.parsed(), list[Data2Vec]()
    benchmark.step_of(args, Case.of("text/base", toy=True), "fp32", "library", models.append)()
    assert models[0].student.encoder.checkpoint_activations


@pytest.mark.parametrize("kernels", ["plain", "onednn-linear,row-attention"])
def test_features_are_compared_with_those_of_transformers(kernels: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In fp32, the benchmark ends with an error if they differ."""
    arguments = ["inference.py", "--toy", "--rounds", "1", "--batches", "4", "--rows", "4", "--kernels", kernels]
    with mock.patch.object(sys, "argv", [*arguments, "--json"]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no preparation of the input is stored
        inference.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    precisions = ["fp32", "bf16"]
    assert [(row["model"], row["precision"]) for row in rows] == list(product(inference.MODELS, precisions))
    for row in rows:
        assert row["ratio"] == row["transformers"] / row["library"] > 0
        if has_onednn_linear():
            lacks = {"onednn-linear"} if row["precision"] == "bf16" and not onednn_has_bf16() else set()
            assert row["kernels"] == [name for name in kernels.split(",") if name not in lacks]
        assert row["way"] in row["errors"].keys() - {"library"}
        assert row["errors"]["library"] < (inference.AGREE if row["precision"] == "fp32" else 0.1)


def onednn_has_bf16() -> bool:
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported


def test_memory_above_what_is_held_is_that_of_the_step() -> None:
    def one() -> None:
        torch.ones(1 << 26).sum()  # 256 MiB

    found = benchmark.memory_of_this_process(one, "cpu")
    assert 0.2 < found["above_gib"] < 0.4 < found["peak_gib"]


@pytest.mark.parametrize(
    ("given", "names"),
    [(["train.batch_size=2"], ["fit", "by hand"]), (["--against", str(BENCHMARKS.parent)], ["this", "other"])],
)
def test_updates_of_the_loop_are_timed(capfd: pytest.CaptureFixture[str], given: list[str], names: list[str]) -> None:
    with mock.patch.object(sys, "argv", ["loop.py", "--rounds", "2", "--updates", "1", "--json", *given]):
        loop.main()
    row = json.loads(capfd.readouterr().out)
    assert [name for name in row if name in {"fit", "by hand", "this", "other"}] == names
    assert row["ratio"] == row[names[0]] / row[names[1]] > 0
    assert (row["threads"], row["clock"]) == (1, "cpu")


def test_a_folder_without_the_packages_is_no_checkout(tmp_path: Path) -> None:
    with (
        mock.patch.object(sys, "argv", ["loop.py", "--against", str(tmp_path)]),
        pytest.raises(SystemExit, match="is no checkout: it has no d2v_core"),
    ):
        loop.main()
