"""Every command of the README is run, word for word, with small settings appended."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import lightning_vision as lv
from lightning_vision.__main__ import main
from lightning_vision.testing.clip import write_clip
from lightning_vision.testing.discs import write_discs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [line.split("   #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = list(dict.fromkeys(line for line in LINES if line.startswith("python -m lightning_vision")))
SMALL = {
    "fit": ["epochs=1", "image_size=32", "batch_size=8", "data.num_images=60"],
    "encoder=resnet": ["encoder.use_pretrained=false", "encoder.model_variant=18"],
    "encoder=mobilenetv2": ["encoder.use_pretrained=false"],
    "encoder=dinov2": ["encoder.pretrained_model_name_or_path=models/dinov2"],
    "encoder=clip": ["encoder.pretrained_model_name_or_path=models/clip"],
    "encoder=squeezenet": ["encoder.weights=squeezenet.pth", "encoder.model_variant=1_1"],
    "encoder=swin_transformer": ["encoder.use_pretrained=false"],
    "template=clarifai_resnext": ["encoder.use_pretrained=false"],
    "template=mmclassification_resnet_50_rsb_a1": ["preprocessing.train_size=40"],
    "experiment=linear_probe": ["encoder.pretrained_model_name_or_path=models/dinov2"],
    "ludwig=segmentation_config.yaml": ["encoder.use_pretrained=false", "encoder.model_name=convnextv2_atto"],
}

LUDWIG = """
model_type: ecd
input_features:
  - {name: image, type: image, encoder: {type: convnextv2, model_name: convnextv2_tiny, use_pretrained: true}}
output_features:
  - {name: mask, type: image, decoder: {type: unet, num_classes: 3}, loss: {type: softmax_cross_entropy}}
preprocessing:
  image: {height: 256, width: 256, num_channels: 3}
trainer:
  epochs: 30
  batch_size: 16
  optimizer: {type: adamw, lr: 3.0e-4}
  learning_rate_scheduler: {type: cosine}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything lies that the README speaks of."""
    from transformers import Dinov2Config, Dinov2Model

    home = tmp_path_factory.mktemp("home")
    discs = write_discs(home / "discs", ignore_index=None)
    for name in ("pets.csv", "weather.csv"):
        text = discs.read_text(encoding="utf-8")
        (home / name).write_text(re.sub(r"(\d+(_mask)?\.(png|jpg))", r"discs/\1", text), encoding="utf-8")
    odd = home / "my photos, (2024)=ü"
    shutil.copytree(home / "discs", odd / "discs")
    shutil.copy(home / "pets.csv", odd)
    for i, name in enumerate(("rain", "sun") * 10):
        target = home / "weather" / name / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (i * 10, 0, 200 if name == "rain" else 0)).save(target)
    shutil.copytree(home / "weather" / "sun", home / "photos")
    tiny = Dinov2Config(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(tiny).save_pretrained(home / "models" / "dinov2")
    write_clip(home / "models" / "clip")
    torch.save(torchvision.models.squeezenet1_1().state_dict(), home / "squeezenet.pth")
    both = [f"{row},{row}" for row in (f"photos/{i}.png" for i in range(1, 20, 2))]
    rows = [f"{pair},{('same', 'other')[i % 2]}" for i, pair in enumerate(both)]
    write_tables(home)
    write_targets(home)
    (home / "segmentation_config.yaml").write_text(LUDWIG, encoding="utf-8")
    write_painted_masks(home / "painted")
    write_large_images(home)
    shutil.copy(home / "tags.csv", home / "more_tags.csv")
    lv.fit(
        data="table",
        decoder="classifier",
        epochs=1,
        image_size=32,
        overrides={"data.path": str(home / "tags.csv"), "data.target": "labels", "output_dir": str(home / "tagged")},
    )
    (home / "pairs.csv").write_text("\n".join(["left,right,label", *rows * 3]) + "\n")
    lv.fit(
        data="shapes",
        epochs=1,
        image_size=32,
        overrides={"data.num_images": 60, "output_dir": str(home / "run"), "decoder.channels": [8, 8]},
    )
    return home


def write_targets(home: Path) -> None:
    """Write tables with sets of labels, with a label for what is unknown, and with what is normal."""
    header, *rows = (home / "pets.csv").read_text(encoding="utf-8").splitlines()
    image, label, split = (header.split(",").index(name) for name in ("image", "label", "split"))
    tags, animals, parts = ["image,labels,indoor,night,split"], ["image,label,split"], ["image,label,split"]
    for i, cells in enumerate(row.split(",") for row in rows):
        file, name, part = cells[image], cells[label], cells[split]
        indoor, night = int(name == "red"), int(i % 5 > 2)
        names = "|".join(n for n, yes in (("indoor", indoor), ("night", night)) if yes)
        tags.append(f"{file},{names},{indoor},{night},{part}")
        animals.append(f"{file},{'other' if i % 5 == 0 else name},{part}")
        if part != "train" or name == "blue":
            parts.append(f"{file},{'normal' if name == 'blue' else 'scratched'},{part}")
    for file_name, lines in (("tags.csv", tags), ("animals.csv", animals), ("parts.csv", parts)):
        (home / file_name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tables(home: Path) -> None:
    """Write what pets.csv tells in other forms: with patients, as Parquet, as a dataset of Hugging Face."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn

    header, *rows = (home / "pets.csv").read_text(encoding="utf-8").splitlines()
    columns = [header.split(",").index(name) for name in ("image", "label")]
    cells = [[row.split(",")[i] for i in columns] for row in rows]
    lines = ["image,label,patient", *(f"{image},{label},{i // 3}" for i, (image, label) in enumerate(cells))]
    (home / "scans.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    images, labels = map(list, zip(*cells, strict=True))
    Dataset.from_dict({"image": images, "label": labels}).to_parquet(home / "weather.parquet")
    features = Features({"image": ImageColumn(decode=False), "label": ClassLabel(names=sorted(set(labels)))})
    pictures = [{"bytes": (home / image).read_bytes(), "path": None} for image in images]
    Dataset.from_dict({"image": pictures, "label": labels}, features=features).save_to_disk(home / "my_dataset")


def write_large_images(home: Path) -> None:
    """Write an image larger than those of the training, and a short film."""
    import av

    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    Image.fromarray(pixels).save(home / "large.png")
    with av.open(str(home / "clip.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 80, 100, "yuv420p"
        for _ in range(12):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        film.mux(stream.encode())


def write_painted_masks(folder: Path) -> None:
    """Write images beside masks whose colours are the classes, and a file that names the colours."""
    colors = {"ground": (0, 0, 0), "blue": (0, 0, 255), "red": (255, 0, 0)}
    table = write_discs(folder / "discs", count=20, ignore_index=None)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for path in sorted(table.parent.glob("*_mask.png")):
        i = path.stem.removesuffix("_mask")
        shutil.copy(next(table.parent.glob(f"{i}.*")), folder / "images")
        ids = np.asarray(Image.open(path))
        Image.fromarray(np.array(list(colors.values()), np.uint8)[ids]).save(folder / "masks" / f"{i}.png")
    shutil.rmtree(table.parent)
    lines = [f"{r} {g} {b} {name}" for name, (r, g, b) in colors.items()]
    (folder.parent / "label_colors.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def small(words: list[str]) -> list[str]:
    """What makes a command quick: a smaller network, fewer images, no download."""
    actions = {
        "check",
        "test",
        "predict",
        "export",
        "summary",
        "cache",
        "cache=list",
        "cache=clear",
        "encoders",
        "decoders",
        "losses",
        "data",
        "augmentations",
        "templates",
        "experiments",
    }
    added = [w for key, more in SMALL.items() if key in words for w in more]
    if actions & set(words):
        return added if any(w.startswith("encoder=") for w in words) else []
    checkpoint = any(w.startswith("checkpoint=") for w in words)
    if checkpoint:
        return ["epochs=2", "image_size=32", "data.num_images=60", "decoder.channels=[8,8]"]
    fit = [
        w
        for w in SMALL["fit"]
        if "data.num_images" not in w or not any(x.startswith(("data=", "ludwig=")) for x in words)
    ]
    if any(w.startswith("encoder_freeze_epochs=") for w in words):
        fit[0] = "epochs=2"  # the first is spent frozen
    if any(w.startswith("sweep.resume=") for w in words):
        return []  # the words of the sweep hold
    swept = [w.partition("=")[0] for w in words if "(" in w]
    return added + [w for w in fit if w.partition("=")[0] not in swept]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-vision", *words])
    code = None
    try:
        main()
    except SystemExit as end:
        code = end.code
    assert code in (None, 0), words


@pytest.mark.pictures
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(home)
    words = shlex.split(command)[3:]
    if "sweep.resume=sweep" in words:
        run(["-m", "seed=0", "hydra.sweep.dir=sweep", *SMALL["fit"]], monkeypatch)
    run(words + small(words), monkeypatch)
    assert capsys.readouterr().out.strip()


def test_the_set_up_lines_are_there_and_the_gate_runs_the_tests_line() -> None:
    set_up = [line for line in LINES if line.startswith("python3 -m venv")]
    assert len(set_up) == 2
    assert set_up[0].endswith("-m lightning_vision experiment=sample")
    assert set_up[1].endswith("-m pytest -n 2")
    assert "grep -m1 'pytest -n 2' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_nothing_in_the_readme_escapes_the_tests() -> None:
    assert len(COMMANDS) >= 12
    assert all(line.startswith(("python -m lightning_vision", "python3 -m venv")) for line in LINES)


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.findall(r"^[A-Z_]{4,}$", README, re.MULTILINE)
