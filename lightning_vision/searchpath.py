"""Where configs lie: conf/ of this package, those of plugins, and those of ``--config-dir``. No Hydra until it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from lightning_vision.errors import ConfigError

PLUGIN_GROUP = "lightning_vision.plugins"  # entry points: name = package whose conf/ joins the search path


@cache
def conf_dir() -> Path:
    """Return the folder that holds config.yaml: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    candidates = (package / "conf", package.parent / "conf")
    found = next((c for c in candidates if (c / "config.yaml").is_file()), None)
    if found is None:
        raise ConfigError("The folder of configs is missing", expected=" or ".join(map(str, candidates)))
    return found


@cache
def plugins() -> dict[str, Path]:
    """Return the conf folders of installed plugins by package name, without importing them.

    A plugin that brings no configs is named on stderr and left out: no run that does without it is held up.

    Raises:
        ConfigError: An option of a plugin has the name of another one.
    """
    from importlib.metadata import entry_points

    from lightning_vision.signatures import package_folders

    found: dict[str, Path] = {}
    for entry in entry_points(group=PLUGIN_GROUP):
        folders = [f / "conf" for f in package_folders(entry.value) if (f / "conf").is_dir()]
        if folders:
            found[entry.value] = folders[0]
        else:
            print(
                f"warning: the plugin {entry.name} is left out: there is no installed package {entry.value} with a "
                f"folder conf/ (pip uninstall {entry.dist.name if entry.dist else entry.name})",
                file=sys.stderr,
            )
    _refuse_clashes(found)
    return found


def owner_of(file: Path) -> str | None:
    """The plugin that an option's file belongs to, None if it is ours or one of ``--config-dir``."""
    return next((package for package, folder in plugins().items() if folder == file.parent.parent), None)


def _refuse_clashes(found: Mapping[str, Path]) -> None:
    """Hydra takes the first of two options with one name without a word; that would be a silent mix-up."""
    owner = {file.relative_to(conf_dir()): "lightning_vision" for file in conf_dir().glob("*/*.yaml")}
    for package, folder in found.items():
        for file in sorted(folder.glob("*/*.yaml")):
            option = file.relative_to(folder)
            if option in owner:
                raise ConfigError(
                    f"Two packages have an option {option.parent}={option.stem}",
                    given=f"conf/{option} in {package} and in {owner[option]}",
                    expected="one name for one option",
                    override=f"mv {file} {file.with_stem(f'{package}_{option.stem}')}",
                )
            owner[option] = package


def add_conf_dirs(folders: Sequence[Path]) -> None:
    """Let this process know folders of configs besides ours and the plugins': those of ``--config-dir``."""
    _added[:] = folders


_added: list[Path] = []


def conf_dirs() -> list[Path]:
    """Return all folders of configs: ours, those of ``--config-dir``, and the plugins'."""
    return [conf_dir(), *_added, *plugins().values()]


def options_of(group: str) -> dict[str, Path]:
    """Return the options of a group by name, with their files."""
    files = [f for folder in reversed(conf_dirs()) for f in (folder / group).glob("*.yaml")]
    return dict(sorted({f.stem: f for f in files}.items()))


def groups() -> list[str]:
    """Return the names of the config groups."""
    found = {f.name for folder in conf_dirs() if folder.is_dir() for f in folder.iterdir() if f.is_dir()}
    return sorted(found - {"hydra", "__pycache__"})


def default_of(group: str) -> str | None:
    """Return the option that the defaults list names for a group, else its first one, None if it has none."""
    import yaml

    config = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))
    named = next((d[group] for d in config["defaults"] if isinstance(d, dict) and group in d), None)
    return named if named is not None else next(iter(options_of(group)), None)


def register_plugins(added: bool = True) -> None:
    """Let Hydra know our sweeper, and append the conf folders of plugins to its search path: built-in options win.

    Args:
        added: With the folders of ``--config-dir``, which ``hydra.main`` appends by itself.
    """
    global _registered
    from lightning_vision.sweeps.plugin import register

    register()
    extra = _added if added else []
    if not plugins() and not extra and _registered is None:
        return
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    if _registered is None:

        class VisionPlugins(SearchPathPlugin):
            our_folders: ClassVar[dict[str, Path]] = {}

            def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
                for name, folder in self.our_folders.items():
                    search_path.append(provider=name, path=f"file://{folder}")

        _registered = VisionPlugins
        Plugins.instance().register(VisionPlugins)
    folders = {f"config-dir {folder}": folder for folder in extra} | {f"plugin {k}": v for k, v in plugins().items()}
    _registered.our_folders = folders


# Hydra holds classes, not instances: the folders live in the one class that is registered.
_registered: Any = None
