"""The LightningModule: normalisation, encoder, neck, decoder, loss; thin, because each of them is a torch module."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from lightning_vision.callbacks.unfreeze import FreezeEncoder
from lightning_vision.checkpoint import pack, restore_encoder_weights
from lightning_vision.data.embeddings import EmbeddingCache
from lightning_vision.decoders.base import Decoder
from lightning_vision.encoders.base import Encoder
from lightning_vision.inference.restore import restore_size
from lightning_vision.metrics import EpochScores
from lightning_vision.optim import learning_rates, parameter_groups
from lightning_vision.tasks.base import Task
from lightning_vision.types import Batch, Geometry, PixelStats

# Floats that fit into the cache of a core, with the bytes that they are made of.
IN_CACHE = 2**18


class Normalize(nn.Module):
    """uint8 pixels to standardised float, with the statistics of the encoder's weights.

    The scale and shift are buffers: they travel with the device, the checkpoint and every export.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, stats: PixelStats) -> None:
        super().__init__()
        mean, std = torch.tensor(stats.mean), torch.tensor(stats.std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)`` uint8 in [0, 255], or float in [0, 1], to float32."""
        if image.dtype != torch.uint8:
            return image.to(self.scale.dtype).mul(self.scale * 255).add_(self.shift)
        if image.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return image.to(self.scale.dtype).mul_(self.scale).add_(self.shift)
        # As many images at once as stay in the processor's cache from one operation to the next.
        pixels = torch.empty(image.shape, dtype=self.scale.dtype)
        count = max(1, IN_CACHE // max(1, image[:1].numel()))
        for part, source in zip(pixels.split(count), image.split(count), strict=True):
            part.copy_(source).mul_(self.scale).add_(self.shift)
        return pixels


class VisionModule(LightningModule):
    """An encoder, a decoder and a task, trained and applied by Lightning.

    Args:
        encoder: Image to embedding or pyramid.
        neck: One-scale maps to a pyramid, or None where the decoder takes the encoder's output as it is.
        decoder: Features to logits.
        loss: Logits and targets to a scalar; None for a module that only predicts.
        task: Figures and predictions.
        geometry: Height, width and channels that images are brought to.
        pixel_stats: Mean and deviation per channel that are applied in ``forward``.
        augmentation: Transforms of training batches, in their order.
        configure: Builds optimizer and schedule: ``(groups, total steps) -> (optimizer, schedule)``.
        lr: Learning rate of everything but the encoder.
        weight_decay: Weight decay of matrices and kernels.
        encoder_lr_factor: The encoder's learning rate is ``lr`` times this.
        encoder_layer_decay: Each layer of the encoder learns with this times the rate of the one above it; None = all
            with the same rate.
        encoder_freeze_epochs: The encoder is frozen in the first so many epochs, and trained from then on.
        config: The resolved config as plain data; it is saved in every checkpoint.
        seed: Base of the random numbers of every training step.
    """

    def __init__(
        self,
        encoder: Encoder,
        neck: nn.Module | None,
        decoder: Decoder,
        loss: nn.Module | None,
        task: Task,
        geometry: Geometry,
        pixel_stats: PixelStats,
        augmentation: list[nn.Module] | None = None,
        configure: Callable[[list[dict[str, Any]], int], tuple[Optimizer, Any]] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        encoder_lr_factor: float = 1.0,
        encoder_layer_decay: float | None = None,
        encoder_freeze_epochs: int = 0,
        config: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(pixel_stats)
        self.encoder = encoder
        self.neck = neck
        self.decoder = decoder
        self.loss = loss
        self.augmentation = nn.ModuleList(augmentation or [])
        self.task = task
        self.geometry = geometry
        self.pixel_stats = pixel_stats
        self.configure = configure
        self.lr = lr
        self.weight_decay = weight_decay
        self.encoder_lr_factor = encoder_lr_factor
        self.encoder_layer_decay = encoder_layer_decay
        self.freezing = FreezeEncoder(encoder_freeze_epochs) if encoder_freeze_epochs else None
        self.config = dict(config or {})
        self.seed = seed
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.train_scores = task.scores() if task.train_figures else None
        self.val_scores = task.scores()
        self.test_scores = task.scores()
        # Segmentation is also scored at the size of each mask's own file.
        self.original_scores = task.scores() if task.target_kind == "mask" else None
        self.results: dict[str, dict[str, Tensor]] = {}
        # Of the last step, by name; of the encoder's layers, before the schedule.
        self.rates: dict[str, float] = {}
        self.encoder_rates: list[float] = []
        # The features of a frozen encoder, where a fit reads them instead of computing them anew in every epoch.
        self.embeddings: EmbeddingCache | None = None

    # The way of an image

    def forward(self, image: Tensor) -> Tensor:
        """Return logits: ``(B, num_classes)``, or ``(B, num_classes, H, W)`` for a dense decoder.

        Args:
            image: ``(B, C, H, W)`` uint8 in [0, 255] or float in [0, 1], of any height and width.
        """
        return self.decode(self.encode(image), (image.shape[-2], image.shape[-1]))

    def encode(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return the encoder's features as the decoder (or the neck) takes them.

        Args:
            image: As in ``forward``.
        """
        pixels = self.normalize(image)
        if self.decoder.consumes == "embedding":
            return self.encoder.embed(pixels)
        if self.decoder.consumes == "logits":
            return self.encoder.classify(pixels)
        return self.encoder.pyramid(pixels)

    def decode(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits of the encoder's features for images of this height and width."""
        if self.neck is not None:
            features = self.neck(features, size)
        return self.decoder(features, size)

    @torch.no_grad()
    def encode_to_store(self, image: Tensor) -> list[Tensor]:
        """Return the features of images as the embedding cache keeps them: float32, on the CPU, without autograd."""
        with self.trainer.precision_plugin.forward_context():
            features = self.encode(image.to(self.device))
        return [f.float().cpu() for f in (features if isinstance(features, list) else [features])]

    def _logits(self, batch: Batch) -> Tensor:
        """Logits of a batch of images, or of features that were read from the embedding cache."""
        if "features" not in batch:
            return self(batch["image"])
        features = [f.to(self.normalize.scale.dtype) for f in batch["features"]]
        size = (self.geometry.height, self.geometry.width)
        return self.decode(features if self.decoder.consumes == "pyramid" else features[0], size)

    # Training

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the random numbers of this step, so that a resumed run draws what an uninterrupted one does."""
        seed_step(_mix(self.seed, self.current_epoch, batch_idx, self.global_rank), self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Augment, predict, and return the loss."""
        target = batch.get("target")
        if len(self.augmentation):
            image = batch["image"]
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
            for transform in self.augmentation:
                image, target = transform(image, target, generator)
            logits = self(image)
        else:
            logits = self._logits(batch)
        loss = self._loss(logits, target)
        self.train_loss.update(loss.detach(), len(batch["index"]))
        if self.train_scores is not None and target is not None:
            self.train_scores.update(logits.detach(), target)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Note the learning rates of the step: behind the last step of an epoch stand those of the next."""
        self.rates = learning_rates(optimizer.param_groups)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training figures, and the learning rates of its last step."""
        row = {"train/loss": self.train_loss.compute()}
        self.train_loss.reset()
        if self.train_scores is not None:
            figures = self.task.figures(self.train_scores.compute())
            row |= {f"train/{k}": torch.tensor(v) for k, v in figures.items()}
            self.train_scores.reset()
        row |= {f"lr/{name}": torch.tensor(rate) for name, rate in self.rates.items()}
        self.log_dict(row, sync_dist=True)

    # Evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a validation batch."""
        self._evaluate(batch, self.val_scores)

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures."""
        self._finish("val", self.val_scores)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a test batch, masks also at their own size."""
        logits = self._evaluate(batch, self.test_scores)
        if self.original_scores is None or logits is None:
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        blank = batch["blank"].tolist() if "blank" in batch else [False] * len(logits)
        for row, sample, unread in zip(batch["index"].tolist(), logits, blank, strict=True):
            if unread:
                continue
            mask = torch.as_tensor(data.original_mask(row)).to(logits.device)
            size = (mask.shape[-2], mask.shape[-1])
            resize = data.preprocessing.resize
            if resize.method == "interpolate":
                resized = restore_size(sample, size, resize)
            else:
                # Counted in the image's pixels, where a mask may be coarser or finer.
                resized = restore_size(sample, data.original_size(row), resize)
                resized = nn.functional.interpolate(resized.unsqueeze(0), size, mode="nearest-exact")[0]
            # Pixels that the crop left out have no prediction and are not scored.
            known = ~resized.isnan().any(0)
            self.original_scores.update(resized[:, known].unsqueeze(0), mask[known].unsqueeze(0))

    def on_test_epoch_end(self) -> None:
        """Log the test figures."""
        extra = {}
        if self.original_scores is not None:
            extra["mean_iou_original"] = self.task.figures(self.original_scores.compute())["mean_iou"]
            self.original_scores.reset()
        self._finish("test", self.test_scores, extra)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return the rows ``(B,)`` and their logits in float32."""
        return batch["index"], self(batch["image"]).float()

    def _loss(self, logits: Tensor, target: Tensor | None) -> Tensor:
        if self.loss is None:
            raise RuntimeError("this module was built without a loss: it predicts only")
        return self.loss(logits, target)

    def _evaluate(self, batch: Batch, scores: EpochScores) -> Tensor | None:
        # A rank with fewer rows than the others gets empty batches at the end.
        if not len(batch["index"]):
            return None
        logits = self._logits(batch)
        scores.update(logits, batch["target"], self._loss(logits, batch["target"]))
        return logits

    def _finish(self, split: str, scores: EpochScores, extra: Mapping[str, float] | None = None) -> None:
        computed = scores.compute()
        self.results[split] = computed
        figures = self.task.figures(computed) | dict(extra or {})
        row = {f"{split}/loss": computed["loss"].float()} | {
            f"{split}/{k}": torch.tensor(v) for k, v in figures.items()
        }
        # The counts are summed over ranks already; the mean over equal values only satisfies Lightning's check.
        self.log_dict(row, sync_dist=True)
        scores.reset()

    # Optimisation and checkpoints

    def configure_callbacks(self) -> list[Callback]:
        """Bring along what freezes the encoder for the first epochs."""
        return [] if self.freezing is None else [self.freezing]

    def configure_optimizers(self) -> Any:
        """Build the optimizer over the parameter groups, and its schedule by steps."""
        if self.configure is None:
            raise RuntimeError("this module was built without an optimizer: it predicts only")
        heads = [m for m in (self.neck, self.decoder, self.loss) if m is not None]
        with nullcontext() if self.freezing is None else self.freezing.lifted():
            groups = parameter_groups(
                self.encoder, heads, self.lr, self.weight_decay, self.encoder_lr_factor, self.encoder_layer_decay
            )
        self.encoder_rates = sorted({group["lr"] for group in groups if group["name"].startswith("encoder")})
        optimizer, schedule = self.configure(groups, self._total_steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _total_steps(self) -> int:
        """Optimizer steps of the whole run.

        Not ``trainer.estimated_stepping_batches``: it sets up the loaders before a resumed run's state is there, and
        Lightning 2.6 then never gives that state to them.
        """
        trainer = self.trainer
        data = trainer.datamodule  # type: ignore[attr-defined]
        if data is None or trainer.max_epochs in (None, -1):
            return int(trainer.estimated_stepping_batches)
        batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps = math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs
        return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a reload needs: config, classes, geometry; leave out what was asked to be left out."""
        pack(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put back encoder weights that the checkpoint does not hold."""
        restore_encoder_weights(self, checkpoint)


def seed_step(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of the device that is used.

    ``torch.manual_seed`` does the same for every kind of device that torch knows; for those that are not in use it
    notes the call with its whole stack, which costs time and memory in every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers, so that neighbouring steps and ranks draw unrelated numbers."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = ((state ^ number) * 0xBF58476D1CE4E5B9) % 2**64
        state ^= state >> 31
    return state % 2**63
