from __future__ import annotations

from lightning_vision.config import compose


def test_no_neck_is_a_part_without_a_target() -> None:
    assert dict(compose(["neck=none", "decoder=linear"]).neck) == {}
