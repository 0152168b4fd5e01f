"""Put a packed bundle where others find it: a web server's folder, a GitHub release, the Hub, an MLflow registry."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from monai.bundle import push_to_hf_hub
from monai.utils import optional_import

from ..files import whole, write_json
from .errors import BadInput
from .pack import pack, unpack
from .registry import to_registry
from .weights_file import read_metadata

huggingface_hub, has_hub = optional_import("huggingface_hub")

GITHUB = "https://github.com"
HUB = "https://huggingface.co"
TOKEN = "HF_TOKEN"


def publish(
    source: Path, target: str, *, github: str | None = None, private: bool = True, dry_run: bool = False
) -> str:
    """Pack a bundle and send it; returns what was sent, where, and how it is fetched, for people.

    Args:
        source: the bundle's folder.
        target: ``hf://<owner>/<repository>`` for the Hugging Face Hub, ``models:/<name>`` for an MLflow registry, or a
            folder for a web server or a release.
        github: ``<owner>/<repository>/<tag>`` of the GitHub release for which the folder is meant.
        private: whether a repository that is made on the Hub can be seen by its owner only.
        dry_run: pack and look, send nothing.

    The Hub is that of ``HF_ENDPOINT``, the token that of ``HF_TOKEN`` or of ``hf auth login``; it is neither written
    nor shown. MLflow reads its own variables (:func:`to_registry`). Raises BadInput for a bundle that is not fit for
    release or a version that is published already.
    """
    with tempfile.TemporaryDirectory(prefix="publishing_") as folder:
        archive = pack(source, Path(folder))
        if github is not None and target.startswith(("hf://", "models:/")):
            raise BadInput("a GitHub release is made from a folder: give a folder as target, or leave out github")
        if target.startswith("models:/"):
            bundle = unpack(archive, Path(folder) / "bundle")
            return to_registry(bundle, target.removeprefix("models:/"), dry_run=dry_run)
        if target.startswith("hf://"):
            return to_hub(archive, target.removeprefix("hf://").strip("/"), private=private, dry_run=dry_run)
        return to_folder(archive, Path(target), github, dry_run=dry_run)


def to_folder(archive: Path, folder: Path, github: str | None, *, dry_run: bool) -> str:
    """Put a zip into a folder, with ``models/model_info.json`` in MONAI's form beside it."""
    address = ""
    if github is not None:
        if github.count("/") != 2:
            raise BadInput(f"github must be <owner>/<repository>/<tag>, got {github!r}")
        owner, repository, tag = github.split("/")
        address = f"{GITHUB}/{owner}/{repository}/releases/download/{tag}/{archive.name}"
    released = folder / archive.name
    if released.exists() and released.read_bytes() != archive.read_bytes():
        raise BadInput(f"{released} holds another bundle of this version: raise the version in its metadata")
    own = json.loads((archive.parent / "model_info.json").read_text(encoding="utf-8"))
    info = folder / "models" / "model_info.json"
    if not dry_run:
        known = json.loads(info.read_text(encoding="utf-8")) if info.exists() else {}
        known |= {name: {**entry, "source": address} for name, entry in own.items()}
        with whole(released) as unfinished:
            unfinished.write_bytes(archive.read_bytes())
        write_json(info, dict(sorted(known.items())))
    name, version = archive.stem.split("_v")
    lines = [f"{would(dry_run)} {released} ({mib(archive)}) and {info}"]
    if github is None:
        url = f"<address of {folder}>/{archive.name}"
        lines.append(f"fetched by: python -m monai.bundle download --name {name} --url {url}")
    else:
        lines += [
            f"to do: add {archive.name} to the release {tag} of {GITHUB}/{owner}/{repository}, "
            "and models/model_info.json to its files",
            f"fetched by: python -m monai.bundle download --name {name} --version {version} "
            f"--source github --repo {github}",
        ]
    return "\n".join(lines)


def to_hub(archive: Path, repo: str, *, private: bool, dry_run: bool) -> str:
    """Push an unpacked zip to the Hub, its version as a tag and as the latest."""
    if not has_hub:
        raise BadInput("the Hugging Face Hub needs the publish extra: pip install 'pulmozoo[publish]'")
    if repo.count("/") != 1:
        raise BadInput(f"a repository on the Hub is hf://<owner>/<repository>, got hf://{repo}")
    hub = os.environ.get("HF_ENDPOINT", HUB)
    bundle = unpack(archive, archive.parent / "bundle")
    version = read_metadata(bundle)["version"]
    if version in tags_of(repo):
        raise BadInput(f"{hub}/{repo} has a version {version} already: raise the version in its metadata")
    for picture in (bundle / "docs").glob("*.jpg"):  # the Hub shows the card at the root
        shutil.copy(picture, bundle)
    if not dry_run:
        try:
            push_to_hf_hub(
                repo,
                bundle.name,
                str(bundle.parent),
                token=os.environ.get(TOKEN),
                private=private,
                version=version,
                tag_as_latest_version=True,
                commit_message=f"{bundle.name} {version}",
            )
        except huggingface_hub.errors.HfHubHTTPError as error:
            raise BadInput(f"{hub} refused {repo}: {error}; is {TOKEN} set to a token that may write there?") from error
    files = sum(path.is_file() for path in bundle.rglob("*"))
    return "\n".join(
        [
            f"{would(dry_run)} {hub}/{repo}, tag {version}: {files} files ({mib(archive)})",
            f"fetched by: python -m monai.bundle download --name {bundle.name} --version {version} "
            f"--source huggingface_hub --repo {repo}",
        ]
    )


def tags_of(repo: str) -> list[str]:
    """Tags of a repository on the Hub, none where it does not exist."""
    try:
        references = huggingface_hub.HfApi(token=os.environ.get(TOKEN)).list_repo_refs(repo)
    except huggingface_hub.errors.RepositoryNotFoundError:
        return []
    return [tag.name for tag in references.tags]


def would(dry_run: bool) -> str:
    return "would write" if dry_run else "wrote"


def mib(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MiB"
