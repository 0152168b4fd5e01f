"""Register a packed bundle in an MLflow model registry."""

import os
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from .errors import BadInput
from .weights_file import read_metadata

mlflow, has_mlflow = optional_import("mlflow")

SERVER = "MLFLOW_TRACKING_URI"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
LATEST = "latest_version"  # as MONAI tags it on the Hub; MLflow keeps "latest" for itself


def to_registry(bundle: Path, model: str, *, dry_run: bool) -> str:
    """Log an unpacked bundle as a run's artifact and register it as a version of ``model``; returns words for people.

    Server, token and password are those that MLflow's client reads from the environment (``MLFLOW_TRACKING_URI``,
    ``MLFLOW_TRACKING_TOKEN``, ...), and nothing of this machine is written to the run. Raises BadInput for a version
    that is registered already and for whatever the server refuses; the run is deleted then.
    """
    if not has_mlflow:
        raise BadInput("an MLflow registry needs the mlflow extra: pip install 'pulmozoo[mlflow]'")
    if not re.fullmatch(r"[\w.-]+", model):
        raise BadInput(f"a model in an MLflow registry is models:/<name>, got models:/{model}")
    if not os.environ.get(SERVER):
        raise BadInput(f"no MLflow server was given: set {SERVER} to its address")
    try:
        return registered(bundle, model, dry_run=dry_run)
    except (mlflow.exceptions.MlflowException, OSError) as error:  # requests raises kinds of OSError
        raise BadInput(f"{server()} refused models:/{model}: {without_password(str(error))}") from error


def registered(bundle: Path, model: str, *, dry_run: bool) -> str:
    """What :func:`to_registry` does, with errors as MLflow raises them."""
    client = mlflow.MlflowClient()
    tags = tags_of(bundle)
    version = tags["version"]
    if any(known.tags.get("version") == version for known in client.search_model_versions(f"name='{model}'")):
        raise BadInput(f"models:/{model} has a version {version} already: raise the version in its metadata")
    files = sum(path.is_file() for path in bundle.rglob("*"))
    if dry_run:
        return f"would register {bundle.name} {version} as models:/{model} of {server()}: {files} files"
    number = send(client, bundle, model, tags)
    return "\n".join(
        [
            f"registered {bundle.name} {version} as models:/{model}/{number} of {server()}: {files} files",
            f"fetched by: mlflow artifacts download --artifact-uri models:/{model}/{number} --dst-path {bundle.name}",
        ]
    )


def send(client: Any, bundle: Path, model: str, tags: dict[str, str]) -> str:
    """Upload and register; returns the number that MLflow gives to the version. A run that fails is deleted."""
    experiment = mlflow.set_experiment(os.environ.get(EXPERIMENT, "pulmozoo")).experiment_id
    run = client.create_run(experiment, tags=tags, run_name=f"{bundle.name} {tags['version']}").info.run_id
    try:
        client.log_artifacts(run, str(bundle), bundle.name)
        with redirect_stdout(StringIO()):  # MLflow prints the run's address, with a password that is in it
            client.set_terminated(run)
        if not client.search_registered_models(f"name='{model}'"):
            client.create_registered_model(model)
        made = client.create_model_version(model, f"runs:/{run}/{bundle.name}", run, tags)
    except BaseException:
        client.delete_run(run)
        raise
    client.set_registered_model_alias(model, LATEST, made.version)
    return str(made.version)


def tags_of(bundle: Path) -> dict[str, str]:
    """What a registry should show of a bundle, from its metadata."""
    metadata = read_metadata(bundle)
    return {
        "bundle": metadata["name"],
        "version": metadata["version"],
        "weights_sha256": metadata["weights"]["sha256"],
        "weights_tier": metadata["weights"]["tier"],
        "license": metadata["copyright"],
        "intended_use": metadata["intended_use"],
    }


def server() -> str:
    """The registry's address, to be shown."""
    return without_password(mlflow.get_registry_uri())


def without_password(text: str) -> str:
    """The text without the user and password of the addresses in it."""
    return re.sub(r"//[^/\s]*@", "//", text)
