"""Subcommands of `d2v data` for recordings: manifests, labels, and a check of all files."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from d2v.audio.data import AudioDataConfig
from d2v.audio.recordings.label_files import write_labels
from d2v.audio.recordings.manifest_files import write_manifests
from d2v.core.data import Batches, escaped
from d2v.core.jobs.opening import check_files
from d2v.core.modality import DataCommand

__all__ = ["check_recordings", "labels", "manifest"]


def _manifest_arguments(parser: ArgumentParser) -> None:
    """Add the folder and the options of the field."""
    parser.add_argument("root", metavar="FOLDER", help="folder of recordings, searched at any depth")
    parser.add_argument("--dest", default=".", metavar="FOLDER", help="folder to write to (default: this folder)")
    parser.add_argument("--ext", default="flac", help="extension of the recordings (default: %(default)s)")
    parser.add_argument(
        "--valid-percent",
        type=float,
        default=0.01,
        metavar="FRACTION",
        help="fraction of the recordings in valid.tsv, from 0 to 1; 0 = no valid.tsv (default: %(default)s)",
    )
    parser.add_argument(
        "--path-must-contain", default="", metavar="TEXT", help="use only recordings whose whole path contains it"
    )
    parser.add_argument("--seed", type=int, default=42, help="seed of the selection (default: %(default)s)")


def _manifest(arguments: Namespace) -> None:
    """Write train.tsv and valid.tsv; print counts and the files that cannot be read."""
    written, broken = write_manifests(
        Path(arguments.root),
        Path(arguments.dest),
        extension=arguments.ext,
        valid_fraction=arguments.valid_percent,
        path_must_contain=arguments.path_must_contain,
        seed=arguments.seed,
    )
    for path, count in written.items():
        print(f"{escaped(str(path))}: {count} recordings")
    if broken:
        print(f"{len(broken)} files left out, since they cannot be read:")
        print("\n".join(f"  {escaped(path)}" for path in broken))


manifest = DataCommand(
    summary="write the manifests train.tsv and valid.tsv of a folder of recordings",
    add_arguments=_manifest_arguments,
    run=_manifest,
)


def _labels_arguments(parser: ArgumentParser) -> None:
    """Add the manifest, the transcripts and the output."""
    parser.add_argument("manifest", metavar="MANIFEST", help="manifest of the recordings (.tsv)")
    parser.add_argument(
        "--transcripts",
        metavar="FILE",
        help="file of names and texts, separated by a tab or comma (default: LibriSpeech's *.trans.txt beside the "
        "recordings)",
    )
    parser.add_argument(
        "--output-dir", metavar="FOLDER", help="folder to write to (default: the folder of the manifest)"
    )
    parser.add_argument("--output-name", metavar="NAME", help="name of the files (default: that of the manifest)")


def _labels(arguments: Namespace) -> None:
    """Write NAME.ltr and NAME.wrd, and dict.ltr.txt if there is none."""
    source = Path(arguments.manifest)
    written = write_labels(
        source,
        Path(arguments.output_dir) if arguments.output_dir else source.parent,
        arguments.output_name or source.stem,
        transcripts=Path(arguments.transcripts) if arguments.transcripts else None,
    )
    for path, what in written.items():
        print(f"{escaped(str(path))}: {what}")


labels = DataCommand(
    summary="write letters (.ltr), words (.wrd) and the dictionary of the recordings of a manifest",
    add_arguments=_labels_arguments,
    run=_labels,
)


def _check_arguments(parser: ArgumentParser) -> None:
    """Add the path, what may be converted, and the number of reading processes."""
    parser.add_argument("path", metavar="PATH", help="folder, manifest, folder of manifests, or list of recordings")
    parser.add_argument("--sample-rate", type=int, default=16000, metavar="HZ", help="expected rate (default: 16000)")
    parser.add_argument("--resample", action="store_true", help="accept recordings of other rates")
    parser.add_argument("--mixdown", action="store_true", help="accept recordings with several channels")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="loader processes (default: %(default)s)")


def _check(arguments: Namespace) -> None:
    """Read every recording once; print counts, hours, broken files and files that are not used.

    Raises:
        DataError: if the path cannot be used, or a recording is broken.
    """
    config = AudioDataConfig(
        path=arguments.path,
        sample_rate=arguments.sample_rate,
        resample=arguments.resample,
        mixdown=arguments.mixdown,
        num_workers=arguments.workers,
        hold_out=0.0,
    )

    def describe(split: str, batches: Batches) -> str:
        seconds = [batch.source.shape[1] / arguments.sample_rate for batch in batches]
        shown = f", {sum(seconds) / 3600:.3g} h, {min(seconds):.3g} to {max(seconds):.3g} s" if seconds else ""
        return f"{split}: {len(seconds)} recordings{shown}"

    check_files(config, describe, batch_size=1)


check_recordings = DataCommand(
    summary="count recordings and hours, and list the files that cannot be read",
    add_arguments=_check_arguments,
    run=_check,
)
