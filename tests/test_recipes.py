"""Templates and experiments: each composes and builds; bounds and words hold; what is typed beside them wins."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

import lightning_vision as lv
from lightning_vision.__main__ import main
from lightning_vision.config import compose
from lightning_vision.errors import ConfigError
from lightning_vision.resolve import plain
from lightning_vision.searchpath import options_of
from lightning_vision.template import CHOICES, RANGES
from lightning_vision.testing.discs import write_discs
from lightning_vision.testing.torchvision import narrow_model

TEMPLATES = list(options_of("template"))
EXPERIMENTS = [name for name in options_of("experiment") if name != "sample"]
# The hyperparameters of the documents, by template.
STEPPED = {"logreg", "image_size", "batch_size", "init_epochs", "step_epochs", "num_epochs", "per_item_lrate"} | {
    "num_items_per_epoch"
}
DOCUMENTED = {
    "mmclassification_resnet_50_rsb_a1": {
        *("image_size", "batch_size", "num_epochs", "per_item_lrate", "weight_decay", "per_item_min_lrate"),
        *("warmup_iters", "warmup_ratio", "pretrained_weights", "flip_probability", "flip_direction"),
    },
    "clarifai_inception_batch_norm": STEPPED,
    "clarifai_inception_v2": STEPPED,
    "clarifai_resnext": STEPPED,
    "clarifai_inception_transfer_embed_norm": {
        *("logreg", "image_size", "batch_size", "lrate", "base_gradient_multiplier", "num_epochs"),
        *("num_items_per_epoch", "average_horizontal_flips"),
    },
}
RSB, RESNEXT, EMBED_NORM = (
    "mmclassification_resnet_50_rsb_a1",
    "clarifai_resnext",
    "clarifai_inception_transfer_embed_norm",
)


@cache  # many tests ask for the same template
def settings(*words: str, **choices: Any) -> dict[str, Any]:
    return plain(compose(list(words), **choices))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of every kind that an experiment asks for, under the paths that it names."""
    home = tmp_path_factory.mktemp("home")
    write_discs(home / "camvid", ignore_index=11)
    write_discs(home / "pets", ignore_index=None)
    rows = (home / "pets" / "index.csv").read_text(encoding="utf-8").splitlines()[1:]
    cells = [row.split(",") for row in rows]
    pets = [f"pets/{image},pets/{mask},{split}" for image, mask, _, split in cells]
    (home / "pets_segmentation.csv").write_text("\n".join(["image,mask,split", *pets]), encoding="utf-8")
    labels = [f"{image},{label}{'|disc' * (i % 3 > 0)},{split}" for i, (image, _, label, split) in enumerate(cells)]
    (home / "camvid" / "multilabel.csv").write_text("\n".join(["image,labels,split", *labels]), encoding="utf-8")
    (home / "elpv").mkdir()
    kinds = [
        f"../pets/{image},{'normal' if split == 'train' or i % 2 else 'defective'},{split}"
        for i, (image, _, _, split) in enumerate(cells)
    ]
    (home / "elpv" / "anomaly.csv").write_text("\n".join(["image,label,split", *kinds]), encoding="utf-8")
    for image, _, label, split in cells:
        target = home / "weather" / split / label / image
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(home / "pets" / image, target)
    return home


# Small architectures in the place of those that are meant, where building them takes long.
TINY = {
    "dinov2": ["encoder.model_config={hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, patch_size: 14}"],
    "convnextv2": ["encoder.model_name=convnextv2_atto"],
    "timm": ["encoder.model_name=test_resnet"],
}


def assert_reloads(module: Any, file: Path) -> None:
    """Save as a fit does, load, and compare the outputs to the bit."""
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, file)
    image = torch.randint(0, 256, (2, *module.geometry.shape), dtype=torch.uint8)
    with torch.no_grad():
        wanted, found = module.outputs(image), lv.load(file).outputs(image)
    for name, output in wanted.items():
        assert torch.equal(output.logits, found[name].logits), name


class TestTrained:
    """Each is built as its file says, but for weights and size, and trained for a step."""

    @pytest.mark.parametrize("name", [f"template={t}" for t in TEMPLATES] + [f"experiment={e}" for e in EXPERIMENTS])
    def test_a_step(self, name: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(home)
        monkeypatch.setattr(models, "get_model", narrow_model)
        config = settings(name)
        encoder = config["encoder"]
        words = [*TINY.get(str(encoder.get("family")) if encoder.get("family") else "timm", [])]
        words = words if encoder["_target_"].rpartition(".")[2] in ("HuggingFaceEncoder", "TimmEncoder") else []
        if "use_pretrained" in encoder:
            words += ["template.pretrained_weights=None"] if RSB in name else ["encoder.use_pretrained=false"]
        words += [] if "data.path" in config["data"] else ["data.num_images=60"] if name.startswith("template") else []
        size = 80 if EMBED_NORM in name else 32  # Inception V3 takes no smaller ones
        words += ["epochs=1", "batch_size=8", f"image_size={size}"]
        if RSB in name:  # the most that a recipe asks for: a whole fit, and back from its checkpoint
            words += ["+trainer.limit_train_batches=2", f"output_dir={tmp_path}"]
            loaded = lv.load(lv.fit([name, *words]).checkpoint)
            assert loaded.config["optimizer"]["_target_"] == "timm.optim.Lamb"
            return
        module, data = lv.build([name, *words])
        data.setup("fit")
        loss = module.train().training_step(next(iter(data.train_dataloader())), 0)
        loss.backward()
        assert torch.isfinite(loss)
        assert any(p.grad is not None and p.grad.any() for p in module.parameters())
        assert_reloads(module.eval(), tmp_path / "model.ckpt")


class TestHyperparameters:
    @pytest.mark.parametrize("name", TEMPLATES)
    def test_those_of_the_document_are_there_under_their_names(self, name: str) -> None:
        node = settings(f"template={name}")["template"]
        assert set(node) - {RANGES, CHOICES} == DOCUMENTED[name]
        assert set(node[RANGES]) | set(node[CHOICES]) <= DOCUMENTED[name]

    @pytest.mark.parametrize(
        ("name", "key", "wrong", "right"),
        [
            (RSB, "batch_size", 257, 256),
            (RSB, "batch_size", 0, 1),
            (RSB, "num_epochs", 601, 600),
            (RSB, "num_epochs", 2.5, 3),
            (RSB, "weight_decay", 1.5, 1.0),
            (RSB, "flip_probability", -0.1, 0.5),
            (RSB, "per_item_lrate", -1e-5, 2.44140625e-06),
            (RESNEXT, "image_size", 30, 32),
            (RESNEXT, "image_size", 250, 256),
            (RESNEXT, "image_size", 1040, 1024),
            (RESNEXT, "batch_size", 129, 128),
            (RESNEXT, "init_epochs", 0, 1),
            (EMBED_NORM, "num_epochs", 201, 200),
            (EMBED_NORM, "num_items_per_epoch", 0, 1),
        ],
    )
    def test_out_of_range_or_off_the_step_is_refused(self, name: str, key: str, wrong: Any, right: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            settings(f"template={name}", f"template.{key}={wrong}")
        assert any(f"template.{key}={right}" == word for word in caught.value.overrides), caught.value
        node = settings(f"template={name}")["template"]
        for bound in node[RANGES][key]:
            assert bound is None or str(bound) in str(caught.value)

    def test_a_setting_of_the_run_with_the_same_name_is_held_to_the_range(self) -> None:
        with pytest.raises(ConfigError, match="in steps of 16 from 32"):
            settings(f"template={RESNEXT}", "image_size=250")
        assert settings(f"template={RESNEXT}", "image_size=250", "template.ranges.image_size=null")["image_size"] == 250

    def test_the_words_of_a_choice_are_named(self) -> None:
        with pytest.raises(ConfigError, match="horizontal") as caught:
            settings(f"template={RSB}", "template.flip_direction=horizontl")
        assert "template.flip_direction=horizontal" in str(caught.value)
        with pytest.raises(ConfigError, match="one of 0, 1"):
            settings(f"template={RESNEXT}", "template.logreg=2")

    def test_the_learning_rate_is_that_of_an_item_times_the_batch(self) -> None:
        config = settings(f"template={RESNEXT}", "template.batch_size=32", "template.per_item_lrate=0.001")
        assert config["lr"] == config["optimizer"]["lr"] == pytest.approx(0.032)
        assert settings(f"template={RESNEXT}", "batch_size=10", "template.per_item_lrate=0.001")["lr"] == 0.01

    @pytest.mark.parametrize(
        ("name", "word", "right"),
        [
            (RSB, "template.per_item_lrate=0", "template.per_item_lrate=2.44140625e-06"),
            (RSB, "template.per_item_min_lrate=1e-5", "template.per_item_min_lrate=4.8828125e-10"),
            (RSB, "template.warmup_ratio=2", "template.warmup_ratio=0.0001"),
            (EMBED_NORM, "template.average_horizontal_flips=maybe", "template.average_horizontal_flips=true"),
        ],
    )
    def test_what_a_part_refuses_names_the_hyperparameter(self, name: str, word: str, right: str) -> None:
        with pytest.raises(ConfigError) as caught:
            settings(f"template={name}", word)
        assert caught.value.overrides == [right]
        settings(f"template={name}", right)

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            ("template.batch_size=null", "template.batch_size=256"),
            ("template.batch_size='64'", "template.batch_size=64"),
            ("template.batch_size=abc", "template.batch_size=256"),
            ("~template.weight_decay", "cannot be left out"),
            ("template.choices=null", "not a setting"),
            ("template.choices.flip_direction=null", "not a setting"),
            ("template.ranges=null", "minimum, maximum and step"),
            ("template.ranges.batch_size=512", "minimum, maximum and step"),
            ("template.ranges.batch_size=[1,512]", "minimum, maximum and step"),
            ("template.ranges.batch_size=[a,b,c]", "minimum, maximum and step"),
            ("template.ranges.batch_size=[1,512,0]", "minimum, maximum and step"),
            ("+template.batch_sizes=3", "no hyperparameter 'batch_sizes'"),
            ("~loss", "loss"),
        ],
    )
    def test_what_is_no_number_or_no_range_is_refused(self, word: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            settings(f"template={RSB}", word)
        assert message in str(caught.value)

    def test_steps_may_be_fractions(self) -> None:
        words = [f"template={RSB}", "template.ranges.weight_decay=[0,1,0.1]"]
        assert settings(*words, "template.weight_decay=0.3")["optimizer"]["weight_decay"] == 0.3
        with pytest.raises(ConfigError, match=r"template\.weight_decay=0\.3$|template\.weight_decay=0\.3\n"):
            settings(*words, "template.weight_decay=0.32")

    def test_choices_stand_for_settings_of_the_parts(self) -> None:
        config = settings(f"template={RSB}", "template.pretrained_weights=None", "template.flip_probability=0.3")
        assert config["encoder"]["use_pretrained"] is False
        flips = config["augmentation"]
        assert (flips["random_horizontal_flip"]["p"], flips["random_vertical_flip"]["p"]) == (0.3, 0.0)
        flips = settings(f"template={RSB}", "template.flip_direction=vertical")["augmentation"]
        assert (flips["random_horizontal_flip"]["p"], flips["random_vertical_flip"]["p"]) == (0.0, 0.5)
        for logreg, task in ((0, "classification"), (1, "multilabel")):
            assert settings(f"template={RESNEXT}", f"template.logreg={logreg}")["task"] == task

    def test_resnet_strikes_back(self) -> None:
        """Wightman et al. 2021, table 2, column A1; mmpretrain's resnet50_8xb256-rsb-a1-600e_in1k."""
        config = settings(f"template={RSB}", "template.batch_size=256", "template.per_item_lrate=1.953125e-5")
        assert config["lr"] == pytest.approx(5e-3)
        assert config["optimizer"]["_target_"].endswith("Lamb")
        assert config["optimizer"]["weight_decay"] == 0.01
        assert config["scheduler"]["warmup"] * config["epochs"] == pytest.approx(5, rel=1e-3)
        assert settings(f"template={RSB}")["scheduler"]["final_factor"] == pytest.approx(1e-6 / 5e-3)
        assert (config["repeats"], config["encoder"]["drop_path"]) == (3, 0.05)
        mixing = config["augmentation"]["mixup_cutmix"]
        assert (mixing["mixup_alpha"], mixing["cutmix_alpha"]) == (0.2, 1.0)
        policy = config["augmentation"]["rand_augment"]
        assert (policy["num_ops"], policy["magnitude"], policy["magnitude_std"]) == (2, 7, 0.5)
        assert (config["loss"]["label_smoothing"], config["loss"]["smoothed_to"]) == (0.1, "uniform")
        assert config["preprocessing"]["crop_fraction"] == 0.95
        assert config["trainer"]["sync_batchnorm"] is True


class TestTypedBeside:
    def test_a_part_that_was_typed_is_just_that_part(self) -> None:
        config = settings(f"template={RSB}", "encoder=stacked_cnn", "encoder.out_channels=8")
        alone = settings("encoder=stacked_cnn", "encoder.out_channels=8")
        assert config["encoder"] == alone["encoder"]
        assert config["repeats"] == 3, "all else is still the template's"

    @pytest.mark.parametrize(
        "word", ["augmentation=none", "augmentation=[random_horizontal_flip]", "augmentation=false"]
    )
    def test_an_augmentation_that_was_typed_is_just_that_one(self, word: str) -> None:
        found = settings(f"template={RSB}", word)["augmentation"]
        assert found == settings(word)["augmentation"]

    def test_the_order_of_the_words_does_not_matter(self) -> None:
        words = [f"template={RESNEXT}", "encoder=unet", "optimizer=adamw", "template.num_epochs=3"]
        one, other = (settings(*w, "output_dir=run") for w in (words, words[::-1]))
        assert one == other

    def test_an_experiment_gives_way_too(self) -> None:
        found = settings("experiment=sample", "encoder=stacked_cnn")
        assert found["encoder"] == settings("encoder=stacked_cnn")["encoder"]
        assert found["epochs"] == 25

    def test_an_experiment_beside_a_template_brings_its_own_parts(self) -> None:
        found = settings(f"template={RSB}", "experiment=sample", "encoder.base_channels=8")
        assert found["encoder"] == settings("experiment=sample", "encoder.base_channels=8")["encoder"]
        assert found["decoder"] == settings("experiment=sample")["decoder"]
        assert (found["repeats"], found["epochs"]) == (3, 25)
        found = settings(f"template={RSB}", "experiment=sample", "encoder=stacked_cnn")
        assert found["encoder"] == settings("encoder=stacked_cnn")["encoder"]

    def test_all_epochs_of_a_template_are_trained(self) -> None:
        for name in TEMPLATES:
            assert settings(f"template={name}")["callbacks"]["early_stopping"] is None

    @pytest.mark.parametrize(
        "words",
        [
            ["encoder=stacked_cnn", "template.pretrained_weights=None"],
            ["augmentation=none", "template.flip_direction=vertical"],
            ["augmentation=none", "template.flip_probability=0.1"],
            ["batch_size=8", "template.batch_size=16"],
            ["lr=0.1", "template.per_item_lrate=1e-3"],
            ["optimizer.lr=0.1", "scheduler=constant", "template.per_item_lrate=1e-3"],
        ],
    )
    def test_a_hyperparameter_without_effect_is_refused(self, words: list[str]) -> None:
        with pytest.raises(ConfigError, match=r"template\.\w+ has no effect"):
            settings(f"template={RSB}", *words)

    def test_several_outputs_have_decoders_that_no_template_reaches(self) -> None:
        with pytest.raises(ConfigError, match="one output"):
            settings(f"template={RESNEXT}", "outputs={label:{decoder:classifier}}")

    def test_without_a_template_there_are_no_hyperparameters(self) -> None:
        with pytest.raises(ConfigError, match="No template is chosen"):
            settings("template.num_epochs=2")

    def test_a_hyperparameter_that_is_unknown_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"template\.num_epochs=3"):
            settings(f"template={RSB}", "template.num_epoch=3")
        with pytest.raises(ConfigError, match=r"template\.num_epochs=3"):
            settings(f"template={RSB}", "num_epochs=3")

    def test_in_a_sweep_each_run_is_settled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Over the ranges of a template, and over parts that it does not name."""
        monkeypatch.chdir(tmp_path)
        words = [f"template={RESNEXT},{EMBED_NORM}", "encoder=stacked_cnn,unet", "template.batch_size=range(8,17,8)"]
        words += ["epochs=1", "data.num_images=60", "image_size=32", "decoder=classifier", "task=classification"]
        words += ["data.target=label"] if "target" in settings()["data"] else []
        seen: list[tuple[str, int]] = []
        monkeypatch.setattr("lightning_vision.app.run", lambda cfg: seen.append((cfg.encoder._target_, cfg.batch_size)))
        monkeypatch.setattr("sys.argv", ["lightning_vision", "-m", *words, "hydra.sweep.dir=runs"])
        main()
        assert [(name.rpartition(".")[2], size) for name, size in seen] == [
            *(("StackedCNN", 8), ("StackedCNN", 16), ("UNetEncoder", 8), ("UNetEncoder", 16)) * 2,
        ]
