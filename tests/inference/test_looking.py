"""Predictions and tests in tiles and from several views, through the whole of ``predict`` and ``test``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

import lightning_vision as lv
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.inference.saving import check_save
from lightning_vision.module import VisionModule
from lightning_vision.testing.discs import write_discs

SIZE = (32, 40)
CLASSES = ["background", "blue", "red"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"), 20)


def build(table: Path, decoder: str = "unet", target: str = "mask", **more: Any) -> VisionModule:
    values = {"data.path": str(table), "data.target": target, "encoder.out_channels": 8}
    if target == "mask":
        values |= {"data.ignore_index": 255, "data.class_names": CLASSES, "decoder.channels": [16, 8]}
    values |= more.pop("values", {})
    given = {"encoder": "stacked_cnn", "data": "table", "image_size": list(SIZE), "overrides": values, **more}
    return lv.build(**given, **({} if "outputs" in more else {"decoder": decoder}))[0].eval()


@pytest.fixture(scope="module")
def module(table: Path) -> VisionModule:
    return build(table)


@pytest.fixture(scope="module")
def labels(table: Path) -> VisionModule:
    return build(table, "classifier", "label")


def drawn(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blobs of colour, so that an untrained model too predicts several classes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def mask_of(module: VisionModule, image: NDArray[np.uint8], **choices: Any) -> NDArray[np.uint8]:
    (prediction,) = lv.predict(module, image, **choices)
    assert prediction.mask is not None
    return prediction.mask


class TestTiles:
    def test_an_image_that_fits_is_predicted_as_ever_and_the_order_stays(self, module: VisionModule) -> None:
        images = [drawn(60, 70), drawn(100, 90), drawn(61, 70), drawn(60, 50), drawn(20, 30)]
        plain = [p.mask for p in lv.predict(module, images, batch_size=2)]
        tiled = [p.mask for p in lv.predict(module, images, batch_size=2, tile=[60, 70])]
        assert [mask.shape for mask in tiled] == [image.shape[:2] for image in images]
        same = [np.array_equal(a, b) for a, b in zip(plain, tiled, strict=True)]
        assert same == [True, False, False, True, True]
        assert module.tiling is None
        assert module.test_time is None

    @pytest.mark.parametrize("tile", [(32, 40), (48, 60)])
    def test_tiles_without_overlap_are_images_of_their_own(self, module: VisionModule, tile: tuple[int, int]) -> None:
        image = drawn(2 * tile[0], 3 * tile[1])
        found = mask_of(module, image, tile=list(tile), overlap=0, batch_size=4)
        cut = [
            image[top : top + tile[0], left : left + tile[1]]
            for top in range(0, 2 * tile[0], tile[0])
            for left in range(0, 3 * tile[1], tile[1])
        ]
        alone = [p.mask for p in lv.predict(module, cut)]
        expected = np.block([alone[:3], alone[3:]])
        assert len(np.unique(expected)) > 1
        assert np.array_equal(found, expected)

    def test_an_image_that_is_short_keeps_the_scale(self, module: VisionModule) -> None:
        image = drawn(20, 80)
        found = mask_of(module, image, tile=list(SIZE), overlap=0)
        padded = np.pad(image, ((0, 12), (0, 0), (0, 0)), "edge")
        expected = [mask_of(module, padded[:, left : left + 40])[:20] for left in (0, 40)]
        assert np.array_equal(found, np.hstack(expected))

    def test_one_number_has_the_shape_of_the_input(
        self, module: VisionModule, capsys: pytest.CaptureFixture[str]
    ) -> None:
        image = drawn(70, 90)
        assert np.array_equal(mask_of(module, image, tile=60), mask_of(module, image, tile=[48, 60]))
        assert "tiles of 48 x 60 pixels, seen at 32 x 40, overlap 0.25" in capsys.readouterr().out

    def test_a_config_that_knows_none_of_it_will_do(self, module: VisionModule, table: Path) -> None:
        old = build(table)
        old.load_state_dict(module.state_dict())
        for key in ("tile", "overlap", "tta"):
            del old.config[key]
        image = drawn(70, 90)
        assert np.array_equal(mask_of(old, image), mask_of(module, image))
        assert np.array_equal(mask_of(old, image, tile=60), mask_of(module, image, tile=60))

    def test_a_damaged_large_file_is_left_out_by_name(
        self, module: VisionModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("a", "b", "c"):
            Image.fromarray(drawn(80, 90)).save(tmp_path / f"{name}.png")
        content = (tmp_path / "b.png").read_bytes()
        (tmp_path / "b.png").write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=r"b\.png"):
            lv.predict(module, tmp_path, tile=40)
        found = lv.predict(module, tmp_path, tile=40, overrides={"preprocessing.on_bad_image": "skip"})
        assert [Path(p.path).name for p in found] == ["a.png", "c.png"]
        assert "b.png" in capsys.readouterr().out

    def test_a_model_without_masks_refuses_before_it_reads_a_file(self, labels: VisionModule) -> None:
        with pytest.raises(ConfigError, match="for models that predict masks") as error:
            lv.predict(labels, "no/such/folder", tile=512)
        assert "tile=512, and a model for classification" in str(error.value)

    def test_nothing_is_saved_that_needs_the_whole_image(self, module: VisionModule) -> None:
        with pytest.raises(ConfigError, match="never seen as a whole") as error:
            check_save({"tile": 40, "save": ["probabilities", "overlays"]}, module.named_heads())
        assert "save=[overlays]" in str(error.value).replace("'", "")

    def test_other_outputs_see_the_whole_image(self, table: Path) -> None:
        outputs = {"label": {"decoder": "classifier"}, "mask": {"decoder": {"type": "unet", "channels": [16, 8]}}}
        values = {"data.ignore_index": 255, "data.class_names": CLASSES}
        both = build(table, target="label", outputs=outputs, values=values)
        image = drawn(70, 90)
        (plain,), (tiled,) = lv.predict(both, image), lv.predict(both, image, tile=list(SIZE))
        assert np.array_equal(plain.outputs["label"].probabilities, tiled.outputs["label"].probabilities)
        assert not np.array_equal(plain.outputs["mask"].mask, tiled.outputs["mask"].mask)
        assert tiled.outputs["mask"].mask.shape == (70, 90)

    def test_the_images_of_a_sample_must_be_of_one_size(self, table: Path, tmp_path: Path) -> None:
        rows = table.read_text().splitlines()
        left_right = table.with_name("pairs.csv")
        left_right.write_text("\n".join([f"other,{rows[0]}", *(f"{r.split(',')[0]},{r}" for r in rows[1:])]))
        pairs = build(left_right, values={"data.inputs": ["image", "other"]})
        for name, size in (("a", (70, 90)), ("b", (70, 90)), ("c", (70, 80))):
            Image.fromarray(drawn(*size)).save(tmp_path / f"{name}.png")
        source = tmp_path / "pairs.csv"
        source.write_text("image,other\na.png,b.png\n")
        (found,) = lv.predict(pairs, source, tile=40)
        assert found.mask.shape == (70, 90)
        source.write_text("image,other\na.png,c.png\n")
        with pytest.raises(DataError, match="not the size of the other images"):
            lv.predict(pairs, source, tile=40)

    def test_a_test_scores_the_tiles_at_each_masks_own_size(
        self, module: VisionModule, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plain = lv.test(module, overrides={"output_dir": str(tmp_path / "plain")}).metrics
        assert "of tiles" not in capsys.readouterr().out + (tmp_path / "plain" / "report.html").read_text()
        tiled = lv.test(module, tile=40, tta="flips", overrides={"output_dir": str(tmp_path / "tiled")}).metrics
        rows = [row.split(",") for row in table.read_text().splitlines()[1:]]
        rows = [row for row in rows if row[-1] == "test"]
        found = lv.predict(module, [str(table.parent / row[0]) for row in rows], tile=40, tta="flips")
        oracle = MulticlassJaccardIndex(3, ignore_index=255)
        masks = [row[1] for row in rows]
        for prediction, name in zip(found, masks, strict=True):
            truth = np.array(Image.open(table.parent / name))
            oracle.update(torch.from_numpy(prediction.mask)[None], torch.from_numpy(truth)[None].long())
        assert tiled["test/mean_iou_original"] == pytest.approx(float(oracle.compute()), abs=1e-6)
        assert {k: tiled[f"test/{k}"] for k in ("tta_views", "tile_height", "tile_width", "tile_overlap")} == {
            "tta_views": 2,
            "tile_height": 32,
            "tile_width": 40,
            "tile_overlap": 0.25,
        }
        said = "test/mean_iou_original is of tiles; all other figures, tables and pictures are of whole images"
        assert said in capsys.readouterr().out
        assert said in (tmp_path / "tiled" / "report.html").read_text()
        assert {k for k in plain if k in tiled and plain[k] != tiled[k]} >= {"test/mean_iou_original"}
        assert '"test/tta_views": 2.0' in (tmp_path / "tiled" / "metrics.json").read_text()
        assert not any("tile" in key or "tta" in key for key in plain)


class TestViews:
    @pytest.mark.parametrize("view", ["horizontal_flip", "vertical_flip"])
    def test_the_probabilities_are_those_of_the_image_and_its_mirror_image(
        self, labels: VisionModule, view: str
    ) -> None:
        image = drawn(*SIZE)
        mirrored = np.ascontiguousarray(image[:, ::-1] if view == "horizontal_flip" else image[::-1])
        one, other = (p.probabilities for p in lv.predict(labels, [image, mirrored]))
        (both,) = lv.predict(labels, image, tta=[view])
        assert both.probabilities is not None
        np.testing.assert_allclose(both.probabilities, (one + other) / 2, rtol=1e-4, atol=1e-6)
        assert not np.allclose(both.probabilities, one, rtol=1e-4, atol=1e-6)

    def test_a_mask_of_an_image_and_of_its_mirror_image_are_mirror_images(self, module: VisionModule) -> None:
        image = drawn(*SIZE)
        tta = ["horizontal_flip"]
        one, other = (mask_of(module, np.ascontiguousarray(x), tta=tta) for x in (image, image[:, ::-1]))
        assert (one == other[:, ::-1]).mean() > 0.999  # up to the last digits
        assert (mask_of(module, image) == one).mean() < 0.999

    @pytest.mark.parametrize(
        ("given", "choices", "match", "way_out"),
        [
            ({"average_horizontal_flips": True}, {"tta": "flips"}, "already", "tta=scales"),
            ({"encoder": "squeezenet", "image_size": 40}, {"tta": [0.25, 1.5]}, "smaller than", "tta=[1.5]"),
        ],
    )
    def test_what_means_nothing_for_a_model_is_refused(
        self, table: Path, given: dict[str, Any], choices: dict[str, Any], match: str, way_out: str
    ) -> None:
        values = {"encoder.use_pretrained": False} if "encoder" in given else {}
        if not values:
            values = {"encoder.out_channels": 8}
        settings = {"encoder": "stacked_cnn", "decoder": "classifier", "data": "table", "image_size": 32, **given}
        built = lv.build(**settings, overrides={"data.path": str(table), "data.target": "label", **values})[0]
        with pytest.raises(ConfigError, match=match) as error:
            lv.predict(built, "no/such/folder", **choices)
        assert way_out in str(error.value).replace("'", "")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("tta=flip", "did you mean: flips"),
        ("tta=horizontal_flip", "tta=[horizontal_flip]"),
        ("tta=[0.1]", "from 0.25 to 4"),
        ("tile=0", "of at least 1"),
        ("tile=[512]", "tile=512"),
        ("overlap=1.0", "less than 1"),
        ("overlap=0.5", "tile=512 overlap=0.5"),
    ],
)
def test_values_are_checked_with_the_rest_of_the_config(word: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        lv.compose([word])
    assert says in str(error.value).replace("'", "")


@pytest.mark.parametrize("choices", [{"tile": 64}, {"tta": "flips"}])
def test_a_fit_does_not_take_them_in_silence(choices: dict[str, Any]) -> None:
    run: Callable[..., object] = lv.fit
    with pytest.raises(ConfigError, match="fit does not heed"):
        run(**choices)
