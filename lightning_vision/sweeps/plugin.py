"""The sweeper's name in Hydra, ``hydra/sweeper=trials``, and whether a job is one of its trials."""

from __future__ import annotations

# Hydra builds plugins with names in this package alone. The class lies in ours: what lay there would be imported by
# every program on the machine that uses Hydra.
TARGET = "hydra_plugins.lightning_vision.TrialSweeper"


def register() -> None:
    """Let Hydra know the sweeper."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    plugins = Plugins.instance()
    if TARGET in plugins.class_name_to_class:
        return
    from lightning_vision.sweeps.sweeper import TrialSweeper

    plugins.register(TrialSweeper)
    plugins.class_name_to_class[TARGET] = TrialSweeper
    node = {"_target_": TARGET, "max_batch_size": None, "params": None}
    ConfigStore.instance().store(group="hydra/sweeper", name="trials", node=node, provider="lightning_vision")


def is_running() -> bool:
    """Whether the running job is a trial of this sweeper, which goes on after an error."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized():
        return False
    config = HydraConfig.get()
    return config.mode == RunMode.MULTIRUN and str(config.sweeper._target_) == TARGET
