"""The commands as Python calls, one function each, with the same keys."""

from d2v.core.jobs.conversion import convert
from d2v.core.jobs.diagnosis import doctor
from d2v.core.jobs.doctor_report import DoctorError, DoctorReport
from d2v.core.jobs.evaluation import evaluate
from d2v.core.jobs.extraction import extract
from d2v.core.jobs.finetuning import finetune
from d2v.core.jobs.plotting import plot
from d2v.core.jobs.prediction import predict
from d2v.core.jobs.pretraining import pretrain
from d2v.core.jobs.probing import probe
from d2v.core.jobs.ready import ReadyModel, SampleFeatures, load

__all__ = [
    "DoctorError",
    "DoctorReport",
    "ReadyModel",
    "SampleFeatures",
    "convert",
    "doctor",
    "evaluate",
    "extract",
    "finetune",
    "load",
    "plot",
    "predict",
    "pretrain",
    "probe",
]
