"""Is a bundle fit for release? Named checks on its folder, or on its zip as it travels."""

import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import BadInput, innermost_reason
from ..pack import unpack
from . import archive, code, configs, files, metadata, names, probes, readme, weights
from .candidate import Candidate
from .running import run_probes

CHECKS: tuple[Callable[[Candidate], None], ...] = (  # those that read files; they run nothing of the bundle
    files.required_files,
    files.licence,
    files.file_sizes,
    files.large_files,
    files.nothing_private,
    names.name,
    names.task_in_name,
    names.name_apart,
    names.version,
    names.changelog,
    metadata.metadata_schema,
    metadata.metadata_keys,
    metadata.plain_versions,
    metadata.spatial_shapes,
    metadata.image_and_pred,
    metadata.channel_definitions,
    metadata.raw_channels,
    metadata.intended_use,
    metadata.weights_origin,
    readme.readme_sections,
    readme.readme_commands,
    readme.readme_statements,
    readme.readme_pictures,
    configs.json_indent,
    configs.inference_keys,
    configs.training_keys,
    configs.training_handlers,
    configs.entry_lists,
    configs.no_lambdas,
    configs.no_imports,
    configs.no_metadata_references,
    configs.no_file_references,
    configs.plain_strings,
    configs.plain_initialize,
    configs.bundle_roots,
    configs.label_names,
    configs.shared_blocks,
    configs.one_preset,
    configs.presets,
    weights.one_weights_file,
    weights.weights_hash,
    weights.bare_state_dict,
    weights.weights_on_cpu,
    weights.weights_half_and_finite,
    code.code_name,
    code.code_imports,
    code.code_requirements,
)
ZIP_CHECKS: tuple[Callable[[Candidate], None], ...] = (
    archive.zip_name,
    archive.zip_folder,
    archive.zip_times,
    archive.zip_checksum,
)
UNPACKS = "unpacks"


class Result(NamedTuple):
    """What a check found; the reason is empty when it passed."""

    name: str
    passed: bool
    reason: str = ""


def verify(source: Path, only: Collection[str] = ()) -> list[Result]:
    """Check a bundle; the code that its configs name is run, in processes of their own.

    Args:
        source: the bundle's folder, whose code is the installed package; or its zip, whose code is its own.
        only: names of checks; all without.

    Raises BadInput when there is no such bundle or check.
    """
    return list(results(source, only))


def print_checks(source: Path) -> bool:
    """Print a line for each check as it ends, ``pass NAME`` or ``FAIL NAME: reason``; returns whether all passed."""
    fit = True
    for result in results(source):
        sys.stdout.write(f"pass {result.name}\n" if result.passed else f"FAIL {result.name}: {result.reason}\n")
        sys.stdout.flush()
        fit = fit and result.passed
    return fit


def results(source: Path, only: Collection[str] = ()) -> Iterator[Result]:
    """What :func:`verify` returns, each as soon as it is known."""
    if not source.exists():
        raise BadInput(f"{source} does not exist: expected a bundle's folder or its zip")
    is_zip = not source.is_dir()
    checks = {check.__name__: check for check in (*CHECKS, *(ZIP_CHECKS if is_zip else ()))}
    running = [probe.__name__ for probe in (*probes.FOR_ALL, *(probes.FOR_ZIPS if is_zip else ()))]
    unknown = sorted(set(only) - {*checks, *running, UNPACKS})
    if unknown:
        raise BadInput(f"there is no check {unknown[0]!r}: choose of {', '.join((*checks, *running))}")
    with tempfile.TemporaryDirectory(prefix="pulmozoo_verify_") as place:
        folder = Path(place).resolve()
        bundle = Candidate(source.resolve())
        if is_zip:
            try:
                bundle = Candidate(unpack(source, folder / "unpacked"), source.resolve())
            except BadInput as error:
                yield Result(UNPACKS, False, str(error))
                return
            yield Result(UNPACKS, True)
        for name, check in checks.items():
            if not only or name in only:
                yield outcome(check, bundle)
        wanted = [name for name in running if not only or name in only]
        if wanted:
            for name, reason in run_probes(bundle, wanted, folder):
                yield Result(name, not reason, reason)


def outcome(check: Callable[[Candidate], None], bundle: Candidate) -> Result:
    """Run one check; whatever it stumbles over in a broken bundle is a reason too."""
    try:
        check(bundle)
    except Exception as error:
        return Result(check.__name__, False, innermost_reason(error))
    return Result(check.__name__, True)
