"""The mistakes that everybody makes, as the command line answers them: what was given, what would do, what to type.

Every override that a message proposes is typed in its turn, and must work.
"""

from __future__ import annotations

import re
import shlex
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from lightning_vision import load
from lightning_vision.__main__ import main
from lightning_vision.encoders.huggingface_families import FAMILIES
from lightning_vision.testing.discs import write_discs

# A run that takes no time.
QUICK = ["epochs=1", "image_size=32", "batch_size=8"]
LABELS = ["data=table", "data.path=discs/index.csv", "decoder=classifier", *QUICK]
MASKS = ["data=table", "data.path=discs/index.csv", "data.ignore_index=255", "decoder=unet", *QUICK]


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("messages") / "discs", count=20).parent


@pytest.fixture(autouse=True)
def here(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "discs").symlink_to(discs)
    monkeypatch.chdir(tmp_path)


# A DINOv2 of a few thousand parameters.
TINY = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


class Terminal:
    """The command line in this process, and what it left on the screen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def type(self, *words: str) -> tuple[int, str]:
        self.monkeypatch.setattr(sys, "argv", ["lightning_vision", *words])
        self.capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, self.capsys.readouterr().err

    def refused(self, *words: str) -> str:
        """Type words that must be refused; return the message, which is all that is on the error stream."""
        code, message = self.type(*words)
        assert code == 2, message
        assert "Traceback" not in message
        # Torch's hub says what it downloads before it fails.
        lines = [line for line in message.splitlines() if not line.startswith("Downloading:")]
        assert all(re.match(r"  (given|expected|did you mean|try|or):", line) for line in lines[1:]), message
        assert lines[0].strip()
        return "\n".join(lines)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


def said(message: str, part: str) -> str | None:
    """What a message says after ``given:``, ``expected:`` or ``did you mean:``."""
    found = re.search(rf"^  {part}: +(.*)$", message, re.MULTILINE)
    return found[1] if found else None


def proposed(message: str) -> list[list[str]]:
    """The words of every override that a message proposes."""
    return [shlex.split(line) for line in re.findall(r"^  (?:try|or): +(.*)$", message, re.MULTILINE)]


def replaced(words: list[str], better: list[str]) -> list[str]:
    """The words, with those that set the same keys replaced."""
    keys = {w.split("=")[0].lstrip("+") for w in better}
    return [w for w in words if w.split("=")[0].lstrip("+") not in keys] + better


def test_a_wrong_encoder_name(terminal: Terminal) -> None:
    message = terminal.refused("encoder=mobilnetv2", *LABELS)
    assert said(message, "given") == "encoder=mobilnetv2"
    assert said(message, "did you mean") == "mobilenetv2"
    names = [f.stem for f in (Path(__file__).parents[1] / "conf" / "encoder").glob("*.yaml")]
    assert str(said(message, "expected")).split(", ") == sorted(names)
    (better,) = proposed(message)
    assert terminal.type(*LABELS, *better, "encoder.use_pretrained=false") == (0, "")


@pytest.mark.parametrize("plus", ["", "+"])
def test_a_misspelt_key(plus: str, terminal: Terminal) -> None:
    wrong = f"{plus}encoder.num_conv_layer=1"
    message = terminal.refused(wrong, *LABELS)
    assert said(message, "given") == "encoder.num_conv_layer=1"
    assert said(message, "did you mean") == "encoder.num_conv_layers"
    assert "num_conv_layers" in str(said(message, "expected"))
    assert proposed(message) == [["encoder.num_conv_layers=1"]]
    assert terminal.type(*LABELS, "encoder.num_conv_layers=1") == (0, "")
    assert len(list(Path("outputs").glob("*/*"))) == 1, "a mistake leaves no run folder behind"


def test_a_missing_column(terminal: Terminal) -> None:
    words = [*MASKS, "data.target=masks"]
    message = terminal.refused(*words)
    assert said(message, "given") == "masks"
    assert said(message, "expected") == "image, mask, label, split"
    assert said(message, "did you mean") == "mask"
    (better,) = proposed(message)
    assert terminal.type(*replaced(words, better)) == (0, "")


def test_a_missing_file(terminal: Terminal) -> None:
    words = replaced(LABELS, ["data.path=discs/indx.csv"])
    message = terminal.refused(*words)
    assert message.startswith(f"{Path.cwd()}/discs/indx.csv does not exist")
    assert said(message, "given") == "data.path=discs/indx.csv"
    assert "index.csv" in str(said(message, "expected"))
    assert said(message, "did you mean") == "discs/index.csv"
    (better,) = proposed(message)
    assert terminal.type(*replaced(words, better)) == (0, "")


def test_a_missing_image(terminal: Terminal) -> None:
    table = Path("discs/index.csv").read_text(encoding="utf-8")
    Path("photos.csv").write_text(re.sub(r"(?m)^2\.png,", "gone.png,", table), encoding="utf-8")
    words = replaced(LABELS, ["data.path=photos.csv", "data.root=discs"])
    message = terminal.refused(*words)
    assert f"row 4: {Path.cwd()}/discs/gone.png" in str(said(message, "given"))
    assert str(proposed(message)[0][0]) == "data.root=FOLDER"


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([*LABELS, "data.num_classes=4"], "num_classes=4, and 2 distinct labels: blue, red"),
        ([*MASKS, "data.num_classes=2"], "data.num_classes=2, and mask values 0, 1, 2; beyond the classes: 2"),
        ([*LABELS, "data.class_names=[blue,red]", "data.num_classes=5"], "num_classes=5, and 2 class names"),
    ],
    ids=["labels", "masks", "names"],
)
def test_a_number_of_classes_that_contradicts_the_data(words: list[str], given: str, terminal: Terminal) -> None:
    message = terminal.refused(*words)
    assert "data.num_classes" in message
    assert given in str(said(message, "given"))
    assert len(proposed(message)) >= 1
    for better in proposed(message):
        assert terminal.type(*replaced(words, better)) == (0, ""), better


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection, and nothing downloaded before."""
    from huggingface_hub import constants

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("encoder", "given", "overrides"),
    [
        (
            ["encoder=mobilenetv2"],
            "torchvision MobileNet_V2_Weights.IMAGENET1K_V2 "
            "(https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth)",
            ["encoder.weights=FILE", "encoder.use_pretrained=false"],
        ),
        (
            ["encoder=timm", "encoder.model_name=test_resnet"],
            "timm test_resnet",
            ["encoder.weights=FILE", "encoder.use_pretrained=false"],
        ),
        (
            ["encoder=dinov2", "encoder.pretrained_model_name_or_path=facebook/dinov2-small"],
            "transformers facebook/dinov2-small",
            [
                "encoder.pretrained_model_name_or_path=FOLDER",
                "encoder.weights=FILE",
                "encoder.use_pretrained=false",
            ],
        ),
    ],
    ids=["torchvision", "timm", "transformers"],
)
def test_no_network_for_weights(
    encoder: list[str], given: str, overrides: list[str], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES["dinov2"].architectures, "facebook/dinov2-small", TINY)
    words = [*encoder, *LABELS]
    message = terminal.refused(*words)
    assert message.startswith("The pretrained weights cannot be loaded: ")
    assert said(message, "given") == given
    assert said(message, "expected") == "a network, or weights on this machine, or random weights"
    assert [o for (o,) in proposed(message)] == overrides
    from transformers import Dinov2Config, Dinov2Model

    # Random weights first: their encoder gives the file that the next line names.
    for better in reversed(overrides):
        if better.endswith("=FILE"):
            module = load(next(Path("outputs").glob("*/*/checkpoints/last.ckpt")))
            torch.save(module.encoder.model.state_dict(), "weights.pth")
            better = better.replace("FILE", "weights.pth")
        elif better.endswith("=FOLDER"):
            Dinov2Model(Dinov2Config(**TINY)).save_pretrained("dinov2")
            better = better.replace("FOLDER", "dinov2")
        code, error = terminal.type(*replaced(words, [better]))
        assert (code, error) == (0, ""), better


@pytest.mark.parametrize("path", ["discs/index.csv", "my discs", "/ABSOLUTE"])
def test_data_named_by_their_path_alone(path: str, terminal: Terminal) -> None:
    path = path.replace("/ABSOLUTE", str(Path("discs").absolute()))
    Path("my discs").mkdir()
    message = terminal.refused(f"data={path}", "decoder=classifier", *QUICK)
    assert message.startswith(f"data has no option {path!r}")
    option = "table" if path.endswith(".csv") else "folder"
    assert proposed(message) == [[f"data={option}", f"data.path={path}"]]
    if option == "table":
        assert terminal.type(*proposed(message)[0], "decoder=classifier", *QUICK) == (0, "")
