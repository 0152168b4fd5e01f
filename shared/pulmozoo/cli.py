"""The ``pulmozoo`` command line."""

import logging
import sys
from pathlib import Path
from typing import Any

import fire
from monai.bundle import run as run_bundle

from .bundle.adopt import adopt as adopt_checkpoint
from .bundle.checks.verify import print_checks
from .bundle.cross_validate import cross_validate as run_folds
from .bundle.cross_validate import draw_curve, of_values, of_variants
from .bundle.errors import BadInput, innermost_reason
from .bundle.export import export_network, seconds_beside
from .bundle.pack import pack as pack_bundle
from .bundle.publish import publish as publish_bundle
from .bundle.run import SOME_FAILED
from .bundle.show import print_results
from .bundle.weights_file import read_metadata
from .datasets.prepare import prepare_data
from .metrics.changed_scans import AS_IS, write_changed
from .metrics.compare import compare_scores
from .metrics.lobe_yardstick import write_yardstick
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
        layout: lobes: folders (images, labels), copdgene (<scan>_lobes beside each CT, a folder a subject),
            totalsegmentator, luna16 (with the lobes by Tang et al.) or lola11 (no labels: to run, not to score);
            pneumothorax: siim (DICOM films, train-rle.csv), folders (images, masks) or nih (films, image-level table);
            paraseptal: folders (images, labels, maybe lungs) or phantom (a cohort of that disease); emphysema: copdgene
            (images, maybe lung_masks, a table of scores); ild: folders (images, labels, maybe lungs) or hug
            (ILD_DB_txtROIs of the HUG database).
        seed: of the draw and the split.
        keep_all: take all films, not as many without as with the disease.
    """
    written = prepare_data(bundle, Path(data_dir), Path(output_dir), layout, seed, keep_all=keep_all)
    sys.stdout.write(f"{written}\n")


def phantom_gallery(
    picture: str, seed: int = 0, count: int = 4, scans: str | None = None, disease: str | None = None
) -> None:
    """Draw a page of synthetic chests and their labels, beside real scans where a folder is given.

    Args:
        picture: the PNG.
        seed: of the first chest.
        count: chests.
        scans: a CT or a folder of CTs.
        disease: what the chests have, and show instead of lobes: emphysema, paraseptal or ild.
    """
    sys.stdout.write(f"{write_gallery(str(picture), seed, count, scans, disease)}\n")


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


def cross_validate(
    bundle: str,
    dataset_dir: str,
    output_dir: str,
    variants: Any = "own",
    vary: str | None = None,
    values: Any = (),
    folds: int = 5,
    seed: int = 0,
    only: Any = None,
    **options: Any,
) -> None:
    """Train and test a bundle once for each fold; the same command goes on where it was stopped.

    Args:
        bundle: short name (ild), full name or folder of a bundle.
        dataset_dir: a datalist.json as `pulmozoo prepare` writes it; folds are drawn where its entries have none.
        output_dir: where cross_validation.csv, figures and a folder a fold go.
        variants: what to train, as "own,unet,segnet"; own is the bundle without a variant, "aspp+scse" two at once, all
            every combination.
        vary: instead of variants, a key of train.json, such as unlabelled_weight.
        values: the values of that key, as "0,0.1,0.3".
        folds: how many.
        seed: of the draw.
        only: train and test these folds instead of all, as 0 or "0,1".
        options: anything train.json has, the same for all: --max_epochs 20, ...
    """
    folder, out = bundle_folder(bundle), Path(str(output_dir)).absolute()
    if vary is not None and not listed(values):
        raise BadInput(f'what {vary} is to be is missing: expected such as --values "0,0.1,0.3"')
    names = [name for each in listed(variants) for name in str(each).split(",")]  # fire does not part "own,2d_net"
    settings = of_variants(folder, names, options) if vary is None else of_values(vary, listed(values), options)
    chosen = None if only is None else listed(only)
    rows = run_folds(folder, Path(str(dataset_dir)).absolute(), out, settings, folds, seed, chosen)
    if vary is not None:
        draw_curve(rows, vary, listed(values), out / "curve.png")
    for row in rows:
        score = next(key for key in row if f"{key}_sd" in row)
        sys.stdout.write(f"{row['setting']:32} {score} {row[score]:.3f} (sd {row[f'{score}_sd']:.3f})\n")


def listed(option: Any) -> list[Any]:
    """An option as fire hands it over, one value or several."""
    return list(option) if isinstance(option, list | tuple) else [option]


def yardstick(
    dataset_dir: str,
    output_dir: str,
    bundle: str = "lobes",
    results: str | None = None,
    pairs: tuple[str, ...] = (),
    **options: Any,
) -> None:
    """Measure lobes on CTs without labels: lungs, fissures, topology, stability; a table and a picture of each.

    Args:
        dataset_dir: a CT or a folder of CTs.
        output_dir: where the tables go, and in lobes and scans what the bundle made of which changed scans.
        bundle: the lobe bundle, run on the scans as they are, with noise, resampled and flipped.
        results: lobes of the scans, such as the output folder of a run; then nothing is run and nothing changed.
        pairs: ids of scans on one grid that show the same chest, two by two, as "(a, b)".
        options: anything the bundle's inference.json has.
    """
    scans, out = Path(str(dataset_dir)), Path(str(output_dir))
    if results is not None:
        found = {AS_IS: Path(str(results))}
    else:
        found = {}
        for change, folder in {AS_IS: scans, **write_changed(scans, out / "scans")}.items():
            found[change] = out / "lobes" / change
            try:
                run(bundle, str(folder), str(found[change]), **options)
            except SystemExit as stop:
                if stop.code != SOME_FAILED:
                    raise
    rows = write_yardstick(out, scans, found, [str(scan) for scan in pairs])
    for row in rows:
        sys.stdout.write(f"{row['scan']}: {row['reason'] or 'measured'}\n")
    sys.stdout.write(f"{out / 'yardstick.csv'}\n")
    if any(row["status"] == "failed" for row in rows):
        raise SystemExit(SOME_FAILED)


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
    """Pack a bundle and send it to where others find it, with the command that fetches it.

    Args:
        bundle: short name (lobes), full name or folder of a bundle.
        target: hf://OWNER/REPOSITORY, models:/NAME (MLflow), or a folder for a web server or a GitHub release.
        github: OWNER/REPOSITORY/TAG of the release that the folder is meant for.
        private: whether a repository that is made on the Hub is a private one.
        dry_run: say what would be sent, send nothing.
    """
    said = publish_bundle(
        bundle_folder(bundle), str(target), github=github, private=is_true(private), dry_run=is_true(dry_run)
    )
    sys.stdout.write(f"{said}\n")


def export(bundle: str, target: str, preset: str | None = None, time_at: tuple[int, ...] | None = None) -> None:
    """Write a bundle's network as TorchScript or ONNX, after a comparison with the network.

    Args:
        bundle: short name (lobes), full name or folder of a bundle.
        target: the file, ending in .ts for TorchScript or .onnx for ONNX.
        preset: that of the weights; released takes the copy that `pulmozoo import-weights` made.
        time_at: shape of an input, as "(1, 1, 48, 64, 80)", to time the file at beside PyTorch.
    """
    folder = bundle_to_run(bundle_folder(bundle), preset)
    done = export_network(folder, Path(str(target)), preset)
    sys.stdout.write(
        f"{done.path}: at most {done.difference:.1e} from the network, whose answers span {done.answer_range:.3g}, "
        f"at {' and '.join(map(str, done.shapes))}\n"
    )
    if time_at is not None:
        ours, theirs = seconds_beside(folder, done.path, preset, time_at)
        sys.stdout.write(f"{time_at} in float32: {theirs:.3f} s, PyTorch {ours:.3f} s\n")


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
    "yardstick": yardstick,
    "cross-validate": cross_validate,
    "adopt": adopt,
    "pack": pack,
    "publish": publish,
    "export": export,
    "verify": verify,
}


def main() -> None:
    """Entry point: one command a verb; a mistake of the user is one sentence and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        fire.Fire(COMMANDS, name="pulmozoo")
    except (BadInput, ValueError, OSError) as error:
        raise SystemExit(f"pulmozoo: {innermost_reason(error)}") from error
