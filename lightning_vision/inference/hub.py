"""A folder for the hub: weights as safetensors, config, model card; it is read back like a checkpoint."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from lightning_vision import checkpoint as checkpoints
from lightning_vision.assembly import rebuild_module
from lightning_vision.errors import CheckpointError, ConfigError
from lightning_vision.inference.agreement import Images
from lightning_vision.inference.card import model_card
from lightning_vision.runfolder import HUB_CONFIG, HUB_WEIGHTS

if TYPE_CHECKING:
    from lightning_vision.module import VisionModule

# Groups of the config that say where and how a run was logged and computed, addresses and accounts among them; a model
# is built, scored and predicts without them.
OF_THE_RUN = ("logger", "trainer", "callbacks", "sweep")
ADDRESS = re.compile(r"([A-Za-z][\w+.-]*)://(?:[^\s/?#]*@)?([^\s/?#]*)([^\s?#]*)\S*")


def write_hub_folder(
    module: VisionModule, folder: Path, report: Mapping[str, Any], images: Images, origin: Path | None = None
) -> None:
    """Write ``model.safetensors``, ``config.json``, ``config.yaml`` and ``README.md``.

    The config is that of the checkpoint without what tells about this machine and its owner: of paths the last part
    stays, of addresses neither names, passwords nor queries, and of ``OF_THE_RUN`` nothing.

    Args:
        module: A model with its weights.
        folder: Where to; it is made.
        report: What a consumer must know, as in ``export.json``.
        images: Of the data, with their counts.
        origin: The checkpoint, whose run folder holds the figures for the card.

    Raises:
        CheckpointError: The config does not survive as JSON; the message names the key.
    """
    from safetensors.torch import save_file

    folder.mkdir()
    kept = checkpoints.description(module, weights_inside=True)
    kept["config"] = {key: value for key, value in kept["config"].items() if key not in OF_THE_RUN}
    # The names of the classes stay as they are, whatever they look like.
    kept = without_paths(kept) | {"outputs": kept["outputs"]}
    text = json.dumps({"library_name": "lightning_vision", checkpoints.KEY: kept}, indent=1, ensure_ascii=False)
    _assert_same(kept, json.loads(text)[checkpoints.KEY])
    (folder / HUB_CONFIG).write_text(text + "\n", encoding="utf-8")
    config = yaml.safe_dump(kept["config"], sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(
        f"# The config of this model, for people; {HUB_CONFIG} is read.\n{config}", "utf-8"
    )
    # Tensors that share their memory, as tied weights do, are each written by themselves.
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    save_file(weights, folder / HUB_WEIGHTS, {"format": "pt"})
    (folder / "README.md").write_text(model_card(module, kept["config"], report, images, origin), encoding="utf-8")


def check_hub_folder(module: VisionModule, folder: Path, images: Images) -> None:
    """Load the folder and compare its outputs with the model's own, to the bit.

    Raises:
        CheckpointError: They differ.
    """
    loaded = rebuild_module(checkpoints.read(folder))
    with torch.no_grad():
        wanted, found = (model.outputs(images.pixels[:4]) for model in (module, loaded))
    for name, output in wanted.items():
        if not torch.equal(output.logits, found[name].logits):
            raise CheckpointError("The folder for the hub loads to other outputs than the model's own.", given=name)


def read_hub_folder(folder: Path) -> dict[str, Any]:
    """Read a folder as ``write_hub_folder`` makes it, in the form of a checkpoint; no code is run.

    Raises:
        CheckpointError: A file is missing, damaged, or of another program.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    expected = f"a folder with {HUB_WEIGHTS} and {HUB_CONFIG}, as export format=hub writes it"
    for name in (HUB_CONFIG, HUB_WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"The folder of the model has no {name}.", given=folder, expected=expected)
    try:
        config = json.loads((folder / HUB_CONFIG).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{HUB_CONFIG} cannot be read: {error}", given=folder, expected=expected) from error
    if not isinstance(config, dict) or not isinstance(config.get(checkpoints.KEY), dict):
        raise CheckpointError(
            f"{HUB_CONFIG} is not of lightning_vision: it has no {checkpoints.KEY}.", given=folder, expected=expected
        )
    try:
        weights = load_file(folder / HUB_WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{HUB_WEIGHTS} cannot be read: {error}", given=folder, expected=expected) from error
    return {checkpoints.KEY: config[checkpoints.KEY], "state_dict": weights}


def without_paths(value: Any) -> Any:
    """Plain data in which what tells about the machine is cut: absolute paths to their last part, addresses likewise.

    Of an address neither user, password nor query stays, and of one that names no host only the last part. Lists of
    ``class_names`` are left alone.
    """
    if isinstance(value, Mapping):
        return {
            k: list(v) if k == "class_names" and isinstance(v, list | tuple) else without_paths(v)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    if os.path.isabs(value) or value.startswith("~"):
        return os.path.basename(value.rstrip(os.sep))
    return ADDRESS.sub(_public, value)


def _public(address: re.Match[str]) -> str:
    scheme, host, path = address.groups()
    return f"{scheme}://{host}{path}" if host else os.path.basename(path.rstrip("/"))


def _assert_same(kept: Any, read: Any, key: str = "") -> None:
    if isinstance(kept, Mapping) and isinstance(read, Mapping) and kept.keys() == read.keys():
        for name, item in kept.items():
            _assert_same(item, read[name], f"{key}.{name}" if key else str(name))
    elif kept != read and kept == kept:
        raise CheckpointError(
            f"{key or 'the config'} cannot be written as JSON: it would be read as something else.",
            given=repr(kept)[:200],
            expected="numbers, texts, lists, and dicts whose keys are texts",
        )


def push_folder(folder: Path, repository: str) -> str:
    """Upload a folder to a repository of the hub, which is made if it is not there; return its address."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type="model", exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Model of lightning_vision")
    except (OSError, ValueError) as error:  # huggingface_hub's own errors are among them
        raise ConfigError(
            "The hub did not take the model.",
            given=f"push={repository}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            expected=f"owner/name, and a token that may write there; the folder stays in {folder}",
            override="push=null",
        ) from error
    return str(address)
