"""One number a class, given as a list by id or as a mapping by name."""

from __future__ import annotations

import math

from lightning_vision.errors import ConfigError, listed, nearest


def per_class(
    given: list[float] | dict[str, float], class_names: tuple[str, ...], option: str = "class_weights"
) -> list[float]:
    """Return the number of every class, by id.

    Args:
        given: Finite numbers from 0 on: a list in the order of the ids, or by name, where classes that are not named
            get 1.
        class_names: Name of every class, by id.
        option: Name of the loss's option, for the messages.

    Raises:
        ConfigError: A name is no class, a number is negative or not finite, or the list has another length.
    """
    override = f"loss.{option}=null"
    if isinstance(given, dict):
        by_name = {str(k): float(v) for k, v in given.items()}
        for name in by_name:
            if name not in class_names:
                near = nearest(name, class_names)
                raise ConfigError(
                    f"loss.{option} names a class that the data do not have.",
                    given=name,
                    expected=listed(class_names),
                    nearest=near,
                    override=override if near is None else f"loss.{option}={{{near}:{by_name[name]:g}}}",
                )
        numbers = [by_name.get(name, 1.0) for name in class_names]
    else:
        numbers = [float(v) for v in given]
    if len(numbers) != len(class_names) or not all(0 <= v < math.inf for v in numbers):
        raise ConfigError(
            f"loss.{option} must hold one number from 0 on for every class.",
            given=given,
            expected=f"{len(class_names)} numbers, for {listed(class_names)}",
            override=override,
        )
    if not any(numbers):
        raise ConfigError(
            f"loss.{option} is 0 for every class: nothing would be trained.", given=given, override=override
        )
    return numbers
