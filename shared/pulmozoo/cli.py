"""The ``pulmozoo`` command line."""

import logging
import sys
from pathlib import Path
from typing import Any

import fire
from monai.bundle import run as run_bundle

from .bundle.adopt import adopt as adopt_checkpoint
from .bundle.checks.verify import print_checks
from .bundle.errors import BadInput, innermost_reason
from .bundle.pack import pack as pack_bundle
from .bundle.publish import publish as publish_bundle
from .bundle.run import SOME_FAILED
from .bundle.show import print_results
from .bundle.weights_file import read_metadata
from .datasets.prepare import prepare_data
from .metrics.compare import compare_scores
from .phantom.cohort import write_cohort
from .phantom.emphysema_patches import write_patches
from .phantom.film_cohort import write_films
from .phantom.gallery import write_gallery
from .phantom.realism import write_realism
from .weights.released_copy import bundle_to_run, import_copy

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def bundle_folder(name: str) -> Path:
    """Folder of a bundle by its name, its short name (``lobes``) or its path."""
    if (Path(name) / "configs" / "metadata.json").is_file():
        return Path(name).resolve()
    known = {}
    for folder in sorted(BUNDLES.glob("*/configs/metadata.json")):
        metadata = read_metadata(folder.parents[1])
        known[metadata["short_name"]] = folder.parents[1]
        if name in (metadata["name"], metadata["short_name"]):
            return folder.parents[1]
    raise BadInput(f"there is no bundle {name!r}: choose one of {', '.join(known)}, or give a bundle's folder")


def run(bundle: str, dataset_dir: str, output_dir: str, **options: Any) -> None:
    """Run a bundle on a scan or a folder of scans.

    Args:
        bundle: short name (lobes), full name or folder of a bundle.
        dataset_dir: a scan (file or DICOM folder) or a folder of scans.
        output_dir: where the results go.
        options: anything the bundle's inference.json has: --device cpu, --preset released, --overwrite true, ...
    """
    folder = bundle_to_run(bundle_folder(bundle), options.get("preset"))
    config = folder / "configs" / "inference.json"
    try:
        run_bundle(
            config_file=str(config),
            bundle_root=str(folder),
            dataset_dir=str(Path(str(dataset_dir)).absolute()),
            output_dir=str(Path(str(output_dir)).absolute()),
            **options,
        )
    except SystemExit as stop:
        if stop.code == SOME_FAILED:
            print_results(str(output_dir))
        raise
    print_results(str(output_dir))


def show(output_dir: str) -> None:
    """Print the numbers and files of every scan in an output folder."""
    print_results(output_dir)


def phantom(
    output_dir: str,
    count: int = 1,
    seed: int = 0,
    spacing_mm: tuple[float, float, float] | None = None,
    workers: int = 1,
    output_ext: str = ".nii.gz",
    disease: str | None = None,
) -> None:
    """Write synthetic chest CTs with labels of lobes, airways and vessels and a MONAI datalist.

    Args:
        output_dir: made if missing; subjects already there are kept.
        count: subjects.
        seed: which cohort.
        spacing_mm: voxel size as "(x, y, z)"; without it each subject draws its own, and its axes and padding.
        workers: processes.
        output_ext: of the CTs: .nii.gz, or dicom for a folder of slices each; labels are NIfTI.
        disease: what the subjects have: emphysema, paraseptal or ild; its labels and tables come along.
    """
    write_cohort(str(output_dir), count, seed, spacing_mm, workers, output_ext, disease)


def phantom_films(
    output_dir: str,
    count: int = 4,
    seed: int = 0,
    size: int = 512,
    workers: int = 1,
    output_ext: str = ".png",
) -> None:
    """Write synthetic chest films, half of them with a pneumothorax, with the masks and a MONAI datalist.

    Args:
        output_dir: made if missing; films already there are kept.
        count: films; four in a row are of one patient.
        seed: which cohort.
        size: rows and columns.
        workers: processes.
        output_ext: .png or .dcm.
    """
    write_films(str(output_dir), count, seed, size, workers, output_ext)


def prepare(bundle: str, data_dir: str, output_dir: str, layout: str, seed: int = 0, keep_all: bool = False) -> None:
    """Turn a data set as it was downloaded into masks and a list to train from; its images stay where they are.

    Args:
        bundle: short name (lobes, emphysema, paraseptal, ild, pneumothorax).
        data_dir: the data set.
        output_dir: where datalist.json, left_out.csv and masks go, or slices.csv and lungs.
        layout: lobes: folders (images, labels) or totalsegmentator; pneumothorax: siim (DICOM films, train-rle.csv),
            folders (images, masks) or nih (films, image-level table); paraseptal: folders (images, labels, maybe lungs)
            or phantom (a cohort of that disease); emphysema: copdgene (images, maybe lung_masks, a table of scores);
            ild: folders (images, labels, maybe lungs) or hug (ILD_DB_txtROIs of the HUG database).
        seed: of the draw and the split.
        keep_all: take all films, not as many without as with the disease.
    """
    written = prepare_data(bundle, Path(data_dir), Path(output_dir), layout, seed, keep_all=keep_all)
    sys.stdout.write(f"{written}\n")


def phantom_gallery(picture: str, seed: int = 0, count: int = 4, scans: str | None = None) -> None:
    """Draw a page of synthetic chests and their labels, beside real scans where a folder is given.

    Args:
        picture: the PNG.
        seed: of the first chest.
        count: chests.
        scans: a CT or a folder of CTs.
    """
    sys.stdout.write(f"{write_gallery(str(picture), seed, count, scans)}\n")


def phantom_realism(output_dir: str, scans: str, count: int = 20, seed: int = 0) -> None:
    """Hold synthetic chests against real CTs, on the grid of each, in realism.md and two csv files.

    Args:
        output_dir: made if missing.
        scans: a CT or a folder of CTs.
        count: chests on each grid.
        seed: of the first chest.
    """
    sys.stdout.write(f"{write_realism(str(output_dir), scans, count, seed)}\n")


def phantom_patches(table: str, count: int = 12, seed: int = 0) -> None:
    """Hold synthetic emphysema against the HU and the texture of published patches, class by class, in a csv.

    Args:
        table: the csv.
        count: chests.
        seed: of the first chest.
    """
    sys.stdout.write(f"{write_patches(str(table), count, seed)}\n")


def compare(first: str, second: str, out_dir: str, names: tuple[str, str] = ("first", "second")) -> None:
    """Compare two evaluations of the same scans: Wilcoxon's test for each score, and box plots.

    Args:
        first: scores.csv of one evaluation.
        second: scores.csv of the other.
        out_dir: where comparison.csv and comparison.png go.
        names: what to call the two, as "(ours, theirs)".
    """
    called = [str(name) for name in names]
    if len(called) != 2:
        raise BadInput(f'names must be two, as "(ours, theirs)", got {names}')
    for row in compare_scores([Path(str(first)), Path(str(second))], called, Path(str(out_dir))):
        one, other = row[f"{called[0]}_mean"], row[f"{called[1]}_mean"]
        sys.stdout.write(
            f"{row['score']:32} {one:9.4f} {other:9.4f}   p {row['p_bonferroni']:.2g} ({row['scans']} scans)\n"
        )


def adopt(
    checkpoint: str,
    preset: str,
    out: str,
    bundle: str = "lobes",
    tier: str = "yours",
    trained_on: str = "",
    command: str = "",
    score: str = "",
    **settings: Any,
) -> None:
    """Turn a trained checkpoint into a bundle: weights, preset and metadata together.

    Args:
        checkpoint: what training saved (last.pt), or a state dict.
        preset: the preset it was trained with.
        out: folder of the new bundle.
        bundle: the bundle whose network it is.
        tier: authors, phantom or yours.
        trained_on: one sentence on the training data.
        command: the command that trained it.
        score: which score on what.
        settings: other keys of the bundle's configs that it was trained with: --aspp true, ...
    """
    description = {"tier": tier, "trained_on": trained_on, "command": command, "score": score}
    weights = adopt_checkpoint(Path(checkpoint), bundle_folder(bundle), Path(out), preset, description, settings)
    sys.stdout.write(f"{weights}\n")


def import_weights(bundle: str, checkpoint: str | None = None, out: str | None = None) -> None:
    """Make a copy of a bundle with the weights that the paper's authors published.

    Args:
        bundle: short name (lobes), full name or folder of a bundle, which stays as it is.
        checkpoint: the authors' file; without it, it is downloaded.
        out: a new folder; by default one in ~/.cache/pulmozoo, which `pulmozoo run BUNDLE --preset released` finds.
    """
    sys.stdout.write(f"{import_copy(bundle_folder(bundle), checkpoint, out)}\n")


def pack(bundle: str, out_dir: str = "dist") -> None:
    """Write a bundle as a zip that runs wherever MONAI is, with its code, weights and licences.

    Args:
        bundle: short name (lobes), full name or folder of a bundle.
        out_dir: where the zip goes, and its checksum into model_info.json.
    """
    sys.stdout.write(f"{pack_bundle(bundle_folder(bundle), Path(out_dir))}\n")


def publish(bundle: str, target: str, github: str | None = None, private: bool = True, dry_run: bool = False) -> None:
    """Pack a bundle and send it to where monai.bundle.download finds it.

    Args:
        bundle: short name (lobes), full name or folder of a bundle.
        target: hf://OWNER/REPOSITORY, or a folder for a web server or a GitHub release.
        github: OWNER/REPOSITORY/TAG of the release that the folder is meant for.
        private: whether a repository that is made on the Hub is a private one.
        dry_run: say what would be sent, send nothing.
    """
    said = publish_bundle(
        bundle_folder(bundle), str(target), github=github, private=is_true(private), dry_run=is_true(dry_run)
    )
    sys.stdout.write(f"{said}\n")


def is_true(option: object) -> bool:
    """An option as fire hands it over: true, True and "true" are true."""
    return str(option).lower() == "true"


def verify(bundle: str) -> None:
    """Check that a bundle is fit for release: a line a check; exit code 1 when one fails.

    Args:
        bundle: short name (lobes), full name or folder of a bundle, or its zip.
    """
    source = Path(bundle) if bundle.endswith(".zip") else bundle_folder(bundle)
    if not print_checks(source):
        raise SystemExit(1)


COMMANDS = {
    "run": run,
    "show": show,
    "phantom": phantom,
    "phantom-gallery": phantom_gallery,
    "phantom-realism": phantom_realism,
    "phantom-patches": phantom_patches,
    "phantom-films": phantom_films,
    "prepare": prepare,
    "import-weights": import_weights,
    "compare": compare,
    "adopt": adopt,
    "pack": pack,
    "publish": publish,
    "verify": verify,
}


def main() -> None:
    """Entry point: one command a verb; a mistake of the user is one sentence and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        fire.Fire(COMMANDS, name="pulmozoo")
    except (BadInput, ValueError, OSError) as error:
        raise SystemExit(f"pulmozoo: {innermost_reason(error)}") from error
