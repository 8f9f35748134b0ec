"""What there is to choose from: the options of a config group, each with the first line of its file."""

from __future__ import annotations

import sys
from pathlib import Path
from string import Template

from lightning_vision.searchpath import conf_dir, groups, options_of, plugins

LISTINGS = {
    "encoders": "encoder",
    "decoders": "decoder",
    "losses": "loss",
    "data": "data",
    "augmentations": "augmentation",
    "templates": "template",
    "experiments": "experiment",
}

_WIDTH = 120  # characters of a line of the help page


def summary(file: Path) -> str:
    """Return the comment on the first line of a config file, an empty string if there is none."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline().strip()
        if first.startswith("# @package"):
            first = lines.readline().strip()
    return first.lstrip("#").strip() if first.startswith("#") else ""


def listing(group: str) -> str:
    """Return the options of a group as a table: name, one line about it, and the plugin that it comes from."""
    options = options_of(group)
    width = max(map(len, options), default=0)
    origin = {folder: f"  [{name}]" for name, folder in plugins().items()}
    lines = [f"{group}=NAME"]
    for name, file in options.items():
        lines.append(f"  {name:<{width}}  {summary(file)}{origin.get(file.parent.parent, '')}".rstrip())
    return "\n".join(lines)


def help_text() -> str:
    """Return the help page: the template of conf/config.yaml, with the groups and their options filled in."""
    import yaml

    config = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))
    lists = {group: action for action, group in LISTINGS.items()}
    lines = [_on_a_line(f"{group}: {', '.join(options_of(group))}", lists.get(group)) for group in groups()]
    return Template(config["hydra"]["help"]["template"]).safe_substitute(APP_CONFIG_GROUPS="\n".join(lines))


def _on_a_line(text: str, action: str | None) -> str:
    """Cut a line that a screen would wrap, where an action shows the whole list."""
    if action is None or len(text) <= _WIDTH:
        return text
    return f"{text[: text.rindex(',', 0, _WIDTH - 20)]} ... (all: {action})"


def show(text: str) -> None:
    """Print to standard output; a reader that stops early (``| head``) is no error."""
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
