"""The commands that call one function of `d2v.core.jobs`: arguments, output and examples."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from d2v.core.cli.arguments import Keys, Options, RecipeAndKeys, summary_and_details
from d2v.core.cli.command import Command, Parser
from d2v.core.exports import forms_for
from d2v.core.jobs import convert, doctor, evaluate, extract, finetune, plot, predict, pretrain, probe
from d2v.core.jobs.extraction import Extracted, ExtractSettings
from d2v.core.jobs.fine_tuned import UseSettings
from d2v.core.jobs.plotting import Plotted
from d2v.core.jobs.prediction import as_csv
from d2v.core.jobs.probing import ProbeSettings
from d2v.core.jobs.several_runs import SeveralRuns
from d2v.core.modality import modalities
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe
from d2v.core.train import Fitted
from d2v.core.train.ranks import world


class _Takes(Protocol):
    def __call__(self, parser: Parser) -> None: ...
    def values(self, arguments: Namespace) -> dict[str, Any]: ...


def _one_call(
    call: Callable[..., Any],
    *,
    takes: _Takes,
    output: Callable[[Any, Mapping[str, Any]], str],
    example: str,
    shared: bool = False,
) -> Command:
    """A command with the name and description of a function.

    Args:
        call: the function.
        takes: the arguments of the command, which become arguments of the function.
        output: gives the printed text from the result and the arguments.
        example: command lines that work.
        shared: whether the processes of torchrun share its work.
    """
    summary, details = summary_and_details(call)

    def run(arguments: Namespace) -> None:
        given = takes.values(arguments)
        text = output(call(**given), given)
        if world()[0] == 0:  # of several processes the first one prints
            print(text.removesuffix("\n"))

    return Command(
        name=call.__name__,
        summary=summary,
        details=details,
        example=example,
        add_arguments=takes,
        run=run,
        shared=shared,
        takes=takes if isinstance(takes, Keys) else None,
    )


def _updates(fitted: Fitted, _: Mapping[str, Any]) -> str:
    if isinstance(fitted, SeveralRuns):
        return fitted.text()
    return f"{fitted.step} updates" + ("" if fitted.best_step is None else f", the best after {fitted.best_step}")


def _predictions(rows: list[dict[str, Any]], given: Mapping[str, Any]) -> str:
    out = given["overrides"].get("out")
    return as_csv(rows) if out in (None, "", "null") else f"{len(rows)} predictions in {out}"


def _features(done: Extracted, _: Mapping[str, Any]) -> str:
    return f"features of shape {done.shape} in {done.out}, names in {done.names}"


def _forms() -> list[str]:
    """The forms that some model can be converted to."""
    broken = modalities.broken()
    usable = [name for name in modalities.names() if name not in broken]
    return sorted({"d2v", *(form for name in usable for form in forms_for(name))})


def _files(done: Plotted, _: Mapping[str, Any]) -> str:
    return "\n".join(map(str, (*done.files, *done.notes)))


PRETRAIN = _one_call(
    pretrain,
    shared=True,
    takes=RecipeAndKeys(PretrainRecipe),
    output=_updates,
    example="d2v pretrain vision/small data.path=fashion-mnist out=run\n"
    "d2v pretrain vision/base data.path=images out=run train.precision=bf16 train.accumulate=4",
)
FINETUNE = _one_call(
    finetune,
    shared=True,
    takes=RecipeAndKeys(FinetuneRecipe),
    output=_updates,
    example="d2v finetune vision/small-finetune model=run data.path=fashion-mnist out=classifier",
)
EVALUATE = _one_call(
    evaluate,
    shared=True,
    takes=Keys(UseSettings),
    output=lambda evaluated, _: evaluated.text(),
    example="d2v evaluate model=classifier data.path=fashion-mnist\n"
    "d2v evaluate model=classifier data.path=photos split=[val,test] out=results.json",
)
PREDICT = _one_call(
    predict,
    takes=Keys(UseSettings),
    output=_predictions,
    example="d2v predict model=classifier data.path=photos out=predictions.csv",
)
PROBE = _one_call(
    probe,
    shared=True,
    takes=Keys(ProbeSettings),
    output=lambda report, _: report.table(),
    example="d2v probe model=run data.path=fashion-mnist\nd2v probe model=run data.path=photos each=true",
)
EXTRACT = _one_call(
    extract,
    shared=True,
    takes=Keys(ExtractSettings),
    output=_features,
    example="d2v extract model=run data.path=photos out=features.safetensors\n"
    "d2v extract model=run data.path=photos out=patches.npy pooling=tokens layers=final",
)
PLOT = _one_call(
    plot,
    takes=Options(plot),
    output=_files,
    example="d2v plot run\nd2v plot run other-run --out plots --images 6",
)
CONVERT = _one_call(
    convert,
    takes=Options(convert, positional=("source", "target"), words={"to": _forms}),
    output=lambda done, _: done.text(),
    example="d2v convert base_libri.pt base_libri\n"
    "d2v convert audio_base_ls.pt for-transformers --to hugging-face\n"
    "d2v convert cola.pt cola --pretrained nlp_base.pt",
)
_DOCTOR = Options(doctor, leave_out=("tell",))
DOCTOR = Command(
    name="doctor",
    summary=summary_and_details(doctor)[0],
    details=summary_and_details(doctor)[1],
    example="d2v doctor\nd2v doctor --checkpoint base_libri.pt",
    add_arguments=_DOCTOR,
    run=lambda arguments: doctor(**_DOCTOR.values(arguments), tell=lambda line: print(line, flush=True)).require(),
)
