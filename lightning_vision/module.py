"""The LightningModule: normalisation, encoder, heads; thin, because each of them is a torch module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from lightning_vision.augmentation.batches import augmented
from lightning_vision.augmentation.mixing import largest_share
from lightning_vision.callbacks.averaging import WeightAverage
from lightning_vision.callbacks.unfreeze import FreezeEncoder
from lightning_vision.checkpoint import pack, put_raw_weights, restore_encoder_weights, upgrade
from lightning_vision.compiled import compiled_steps
from lightning_vision.data.embeddings import EmbeddingCache
from lightning_vision.decoders.base import Decoder
from lightning_vision.encoders.base import Encoder
from lightning_vision.errors import ConfigError
from lightning_vision.head import Head, HeadOutput, Predicted
from lightning_vision.inference.original import score_at_original_size
from lightning_vision.inference.tiled import TiledImages
from lightning_vision.inference.tiling import Tiling
from lightning_vision.inference.tta import TestTimeAugmentation
from lightning_vision.inlet import Features
from lightning_vision.optim.groups import learning_rates, parameter_groups
from lightning_vision.outputs import OF, figure_prefix, in_order, monitors_of
from lightning_vision.processor import IN_CACHE
from lightning_vision.tasks.base import Task, mean_vectors
from lightning_vision.types import Batch, Geometry, PixelStats

if TYPE_CHECKING:
    from lightning_vision.reports.per_image import PerImageTable

Outputs = Callable[[Tensor], dict[str, HeadOutput]]
# What torch says of a BatchNorm that has nothing to take a variance of.
ONE_VALUE = "Expected more than 1 value per channel when training"


class Normalize(nn.Module):
    """uint8 pixels to standardised float, with the statistics of the encoder's weights.

    The scale and shift are buffers: they travel with the device, the checkpoint and every export.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, stats: PixelStats) -> None:
        super().__init__()
        mean, std = torch.tensor(stats.mean), torch.tensor(stats.std)
        self.memory_format = torch.contiguous_format
        self.register_buffer("scale", (1 / (255 * std)).view(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)`` uint8 in [0, 255], or float in [0, 1], to float32."""
        if image.dtype != torch.uint8:
            pixels = image.to(self.scale.dtype, memory_format=self.memory_format)
            return pixels.mul(self.scale * 255).add_(self.shift)
        if image.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            pixels = image.to(self.scale.dtype, memory_format=self.memory_format)
            return pixels.mul_(self.scale).add_(self.shift)
        # As many images at once as stay in the processor's cache from one operation to the next.
        pixels = torch.empty(image.shape, dtype=self.scale.dtype, memory_format=self.memory_format)
        count = max(1, IN_CACHE // max(1, image[:1].numel()))
        for part, source in zip(pixels.split(count), image.split(count), strict=True):
            part.copy_(source).mul_(self.scale).add_(self.shift)
        return pixels


class VisionModule(LightningModule):
    """An encoder with one head for each output, trained and applied by Lightning.

    Args:
        encoder: Image to embedding or pyramid.
        heads: What follows the encoder for each output, by its name.
        geometry: Height, width and channels that images are brought to.
        pixel_stats: Mean and deviation per channel that are applied in ``forward``.
        augmentation: Transforms of training batches, in their order.
        configure: Builds optimizer and schedule: ``(groups, total steps, steps an epoch) -> (optimizer,
            schedule)``.
        lr: Learning rate of everything but the encoder.
        weight_decay: Weight decay of matrices and kernels.
        encoder_lr_factor: The encoder's learning rate is ``lr`` times this.
        encoder_layer_decay: Each layer of the encoder learns with this times the rate of the one above it; None = all
            with the same rate.
        encoder_freeze_epochs: The encoder is frozen in the first so many epochs, and trained from then on.
        average_horizontal_flips: The embedding of an image is the mean of its own and its mirror image's, in training
            and ever after. For heads that take the embedding alone.
        config: The resolved config as plain data; it is saved in every checkpoint.
        seed: Base of the random numbers of every training step.
    """

    def __init__(
        self,
        encoder: Encoder,
        heads: Mapping[str, Head],
        geometry: Geometry,
        pixel_stats: PixelStats,
        augmentation: list[nn.Module] | None = None,
        configure: Callable[[list[dict[str, Any]], int, int], tuple[Optimizer, Any]] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        encoder_lr_factor: float = 1.0,
        encoder_layer_decay: float | None = None,
        encoder_freeze_epochs: int = 0,
        average_horizontal_flips: bool = False,
        config: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(pixel_stats)
        self.encoder = encoder
        self.names = tuple(heads)
        # With a prefix, because torch's ModuleDict refuses the names of its own methods, such as ``keys`` and ``cpu``.
        self.heads = nn.ModuleDict({f"{OF}{name}": head for name, head in heads.items()})
        self._order = in_order({name: head.dependencies for name, head in heads.items()})
        self.augmentation = nn.ModuleList(augmentation or [])
        self.geometry = geometry
        self.pixel_stats = pixel_stats
        self.configure = configure
        self.lr = lr
        self.weight_decay = weight_decay
        self.encoder_lr_factor = encoder_lr_factor
        self.encoder_layer_decay = encoder_layer_decay
        self.freezing = FreezeEncoder(encoder_freeze_epochs) if encoder_freeze_epochs else None
        self.average_horizontal_flips = average_horizontal_flips
        self.config = dict(config or {})
        self.seed = seed
        self.train_loss = MeanMetric(nan_strategy="disable")
        self._loss_sum, self._loss_samples = torch.zeros((), dtype=torch.float64), 0
        # Of the last step, by name; of the encoder's layers, before the schedule.
        self.rates: dict[str, float] = {}
        self.encoder_rates: list[float] = []
        # The features of a frozen encoder, where a fit reads them instead of computing them anew in every epoch.
        self.embeddings: EmbeddingCache | None = None
        # What a test calls its figures, and where it notes its images one by one.
        self.scored_as = "test"
        self.per_image: PerImageTable | None = None
        # Whether a fit compiles its steps; and the methods that are then called in their place, by name.
        self.compiles_steps = False
        self.compiled: dict[str, Callable[..., Any]] = {}
        # Whether a prediction gives the encoder's embedding too, whatever the heads take.
        self.predicts_embedding = False
        # How images are looked at in a prediction or a test, for as long as it lasts (inference/looking.py).
        self.tiling: Tiling | None = None
        self.test_time: TestTimeAugmentation | None = None

    # Its outputs

    def named_heads(self) -> list[tuple[str, Head]]:
        """Name and head of every output."""
        return list(zip(self.names, cast("Iterable[Head]", self.heads.values()), strict=True))

    def head(self, name: str | None = None) -> Head:
        """The head of an output; without a name the first, which most models have alone."""
        return cast(Head, self.heads[f"{OF}{self.names[0] if name is None else name}"])

    @property
    def decoder(self) -> Decoder:
        """The decoder of the first output."""
        return self.head().decoder

    @property
    def neck(self) -> nn.Module | None:
        """The neck of the first output."""
        return self.head().neck

    @property
    def task(self) -> Task:
        """The task of the first output."""
        return self.head().task

    @property
    def results(self) -> dict[str, dict[str, Tensor]]:
        """What the counters of the first output came to, by split."""
        return self.head().results

    # The way of an image

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Return logits: ``(B, num_classes)``, or ``(B, num_classes, H, W)`` for a dense decoder.

        A model with several outputs returns a dict of them by name.

        Args:
            image: ``(B, C, H, W)`` uint8 in [0, 255] or float in [0, 1], of any height and width.
        """
        logits = {name: output.logits for name, output in self.outputs(image).items()}
        return logits if len(logits) > 1 else next(iter(logits.values()))

    def outputs(self, image: Tensor) -> dict[str, HeadOutput]:
        """Return what every head makes of images, as in ``forward``."""
        pixels = self.normalize(image)
        return self._averaged(pixels, self._outputs_of(pixels), self._outputs_of)

    def _averaged(self, pixels: Tensor, plain: dict[str, HeadOutput], outputs_of: Outputs) -> dict[str, HeadOutput]:
        """The outputs of normalised images with those of their other views, where there is test-time augmentation."""
        if self.test_time is None:
            return plain
        return self.test_time.averaged(self.named_heads(), outputs_of, pixels, plain)

    def _outputs_of(self, pixels: Tensor) -> dict[str, HeadOutput]:
        return self.decode(self.encode(pixels), (pixels.shape[-2], pixels.shape[-1]))

    def encode(self, pixels: Tensor, more: tuple[str, ...] = ()) -> dict[str, Features]:
        """Return the encoder's features of normalised images, each kind that some head takes, and ``more`` of them."""
        if not self.average_horizontal_flips:
            return self.encoder.features(pixels, tuple(dict.fromkeys((*self.consumed, *more))))
        # One pass for both: BatchNorm sees them as one batch.
        own, mirrored = self.encoder.embed(torch.cat([pixels, pixels.flip(-1)])).chunk(2)
        return {"embedding": (own + mirrored) / 2}

    @property
    def consumed(self) -> tuple[str, ...]:
        """The kinds of features that the heads take."""
        return tuple(dict.fromkeys(head.consumes for _, head in self.named_heads()))

    def decode(self, features: Mapping[str, Features], size: tuple[int, int]) -> dict[str, HeadOutput]:
        """Return what every head makes of the encoder's features of images of this height and width."""
        found: dict[str, HeadOutput] = {}
        for name in self._order:
            head = self.head(name)
            found[name] = head(features[head.consumes], size, found)
        return {name: found[name] for name in self.names}

    @torch.no_grad()
    def encode_to_store(self, image: Tensor) -> list[Tensor]:
        """Return the features of images as the embedding cache keeps them: float32, on the CPU, without autograd."""
        with self.trainer.precision_plugin.forward_context():
            (features,) = self.encode(self.normalize(image.to(self.device))).values()
        return [f.float().cpu() for f in (features if isinstance(features, list) else [features])]

    def _outputs(self, batch: Batch) -> tuple[dict[str, HeadOutput], Tensor | None, Outputs]:
        """Outputs of a batch, the input of what is trained, and the way from such inputs to outputs.

        The input is the normalised image, or behind a frozen encoder its embedding, be it cached or not.
        """
        if "features" in batch:
            (kind,) = self.consumed
            found = [f.to(self.normalize.scale.dtype) for f in batch["features"]]
            features: dict[str, Features] = {kind: found if kind == "pyramid" else found[0]}
            size = (self.geometry.height, self.geometry.width)
        else:
            pixels = self.normalize(batch["image"])
            if self.encoder.trainable:
                return self._way("_outputs_of")(pixels), pixels, self._outputs_of
            features, size = self._way("encode")(pixels), (pixels.shape[-2], pixels.shape[-1])
        embedding = cast("Tensor | None", features.get("embedding"))
        outputs = self._way("decode")(features, size)
        return outputs, embedding, lambda x: self.decode({**features, "embedding": x}, size)

    def _way(self, name: str) -> Callable[..., Any]:
        """A method, or in training steps its compiled form."""
        return self.compiled[name] if self.training and name in self.compiled else getattr(self, name)

    def _score(self, outputs_of: Outputs, name: str, inputs: Tensor) -> Tensor:
        """What a head makes of inputs that are no images of the data: running statistics do not learn from them."""
        norms = [m for m in self.modules() if getattr(m, "track_running_stats", False) and m.training]
        for norm in norms:
            norm.track_running_stats = False  # type: ignore[assignment]
        try:
            return outputs_of(inputs)[name].logits
        finally:
            for norm in norms:
                norm.track_running_stats = True  # type: ignore[assignment]

    # Training

    def use_channels_last(self) -> None:
        """Keep kernels and pixels with the channels innermost. What is computed and saved stays the same."""
        self.to(memory_format=torch.channels_last)
        self.normalize.memory_format = torch.channels_last

    def on_fit_start(self) -> None:
        """Compile the steps where that is wanted. Only now: compiled functions cannot be sent to other processes."""
        self.compiled = compiled_steps(self) if self.compiles_steps else {}

    def on_fit_end(self) -> None:
        """Leave the module as it was."""
        self.compiled = {}

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Let decoders that need it take their first values from the training images."""
        heads = [head for _, head in self.named_heads() if head.decoder.starts_from_data]
        if not heads or self.trainer.ckpt_path is not None:
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        size = (self.geometry.height, self.geometry.width)
        modes = {module: module.training for module in self.modules()}
        self.eval()
        for head in heads:
            batches = (batch for batch in data.train_rows_dataloader() if len(batch["index"]))
            features = (self._features_for(head, batch, size) for batch in batches)
            with self.trainer.precision_plugin.forward_context():
                head.decoder.start_from(features, size)
        for module, training in modes.items():
            module.training = training

    def _features_for(self, head: Head, batch: Batch, size: tuple[int, int]) -> Features:
        """The features of a batch as the head's decoder takes them, of the samples that it starts from."""
        batch = self.trainer.strategy.batch_to_device(batch, self.device)
        with self.trainer.precision_plugin.forward_context():
            if "features" in batch:
                found = [f.to(self.normalize.scale.dtype) for f in batch["features"]]
                features: Features = found if head.consumes == "pyramid" else found[0]
            else:
                features = self.encode(self.normalize(batch["image"]))[head.consumes]
            target = head.target(batch)
            if target is not None:
                wanted = head.task.starts_from(target)
                features = features[wanted] if isinstance(features, Tensor) else [f[wanted] for f in features]
            if head.inlet is not None:
                features = head.inlet(features, {})
            return features if head.neck is None else cast(Features, head.neck(features, size))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the random numbers of this step, so that a resumed run draws what an uninterrupted one does."""
        seed_step(_mix(self.seed, self.current_epoch, batch_idx, self.global_rank), self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Augment, predict, and return the loss, summed over the outputs.

        Where images are mixed, the training figures count the class that has the largest share in each image or pixel.

        Raises:
            ConfigError: A BatchNorm gets one value of each channel, from one image and one place of its map.
        """
        if len(self.augmentation) or self.views > 1:
            batch = self._augmented(batch, torch.Generator().manual_seed(int(torch.randint(2**62, ()))))
        try:
            outputs, losses = self._outputs_and_losses(batch)
        except ValueError as error:
            if not str(error).startswith(ONE_VALUE):
                raise
            raise ConfigError(
                "This model has a BatchNorm behind a pooling or on a map of one place: a single image has no variance.",
                given=f"a training batch of one image (batch_size={self.config.get('batch_size', 1)})",
                expected="at least 2 images in a batch; more are better",
                override="batch_size=2",
            ) from error
        loss = self._total(losses)
        # Added up in a tensor: a metric costs ten times as much a step.
        samples = len(batch["index"])
        self._loss_sum = self._loss_sum + loss.detach() * samples
        self._loss_samples += samples
        for name, head in self.named_heads():
            if head.train_scores is not None:
                target = head.target(batch)
                target = target if target is None else largest_share(target, head.trained_target)
                head.count_later(outputs[name].logits, target)
        return loss

    @property
    def views(self) -> int:
        """Views of each image in a training batch, one behind the other."""
        return max(head.views for _, head in self.named_heads())

    def _augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        transforms = cast("list[nn.Module]", list(self.augmentation))
        specs = {head.column: head.trained_target for _, head in self.named_heads()}
        return augmented(batch, transforms, generator, self.views, self.geometry.num_inputs, specs)

    def run_training_batch(self, batch: Batch, number: int) -> None:
        """Send a batch through the model as the training does, for what its layers note of it; without a loss."""
        if len(self.augmentation) or self.views > 1:
            batch = self._augmented(batch, torch.Generator().manual_seed(_mix(self.seed, self.current_epoch, number)))
        with self.trainer.precision_plugin.forward_context():
            self._outputs(batch)

    def _outputs_and_losses(
        self, batch: Batch, compared: bool | None = None
    ) -> tuple[dict[str, HeadOutput], dict[str, Tensor]]:
        """Outputs of a batch, and the losses; ``compared``: of the heads that compare views, or of the others alone."""
        outputs, inputs, outputs_of = self._outputs(batch)
        if self.test_time is not None and compared is not True:
            outputs = self._averaged(self.normalize(batch["image"]), outputs, self._outputs_of)
        losses = {
            name: head.loss_of(outputs[name], head.target(batch), inputs, partial(self._score, outputs_of, name))
            for name, head in self.named_heads()
            if compared is None or compared == (head.views > 1)
        }
        return outputs, losses

    def _total(self, losses: Mapping[str, Tensor]) -> Tensor:
        weighted = [loss if (w := self.head(name).weight) == 1 else w * loss for name, loss in losses.items()]
        return weighted[0] if len(weighted) == 1 else torch.stack(weighted).sum()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Note the learning rates of the step: behind the last step of an epoch stand those of the next."""
        self.rates = learning_rates(optimizer.param_groups)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training figures, and the learning rates of its last step."""
        if self._loss_samples:
            self.train_loss.update(self._loss_sum / self._loss_samples, self._loss_samples)
        row = {"train/loss": self.train_loss.compute()}
        self.train_loss.reset()
        self._loss_sum, self._loss_samples = torch.zeros((), dtype=torch.float64), 0
        for name, head in self.named_heads():
            if head.train_scores is not None:
                head.count_now()
                figures = head.task.figures(head.train_scores.compute())
                row |= {f"train/{self.prefix(name)}{k}": torch.tensor(v) for k, v in figures.items()}
                head.train_scores.reset()
        row |= {f"lr/{name}": torch.tensor(rate) for name, rate in self.rates.items()}
        self._observe(row)
        self.log_dict(row, sync_dist=True)

    def prefix(self, name: str) -> str:
        """What stands before the figures of an output, behind their split: nothing where it is the only one."""
        return figure_prefix(self.names, name)

    def figure_names(self, stage: Literal["train", "val"]) -> list[str]:
        """Every figure that an epoch reports for a split, by its full name."""
        names = ["loss"]
        for name, head in self.named_heads():
            scored = stage == "val" or head.task.train_figures
            figures = head.task.figure_names(stage) if scored else ()
            if len(self.heads) > 1 and stage == "val":
                figures = ("loss", *figures)
            names += [f"{self.prefix(name)}{figure}" for figure in figures]
        return [f"{stage}/{name}" for name in names]

    def class_figures(self) -> list[str]:
        """Every figure of a class that the validation has, by its full name; each can be monitored."""
        return [
            f"val/{self.prefix(name)}{figure}/{class_name}"
            for name, head in self.named_heads()
            for figure in head.task.class_figures
            for class_name in head.task.target.class_names
        ]

    def progress_figures(self) -> list[str]:
        """The figures that stand in the line of an epoch, by full name."""
        shown = [f"val/{self.prefix(name)}{figure}" for name, head in self.named_heads() for figure in head.task.shown]
        return ["train/loss", "val/loss", *shown]

    # Evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a validation batch."""
        self._evaluate(batch, batch_idx, "val")

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures."""
        self._finish("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a test batch, masks also at their own size."""
        outputs = self._evaluate(batch, batch_idx, "test")
        if outputs is None:
            return
        if self.per_image is not None:
            self.per_image.add(batch, outputs)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        tiled = None if self.tiling is None else TiledImages(self, data, self.tiling)
        for name, head in self.named_heads():
            if head.original_scores is not None:
                mask_of = None if tiled is None else tiled.mask
                score_at_original_size(head.original_scores, outputs[name].logits, batch, data, mask_of)

    def on_test_epoch_end(self) -> None:
        """Log the test figures."""
        self._finish("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Predicted:
        """Return the rows and what each head makes of them, in float32; nothing where all of them are for tiles."""
        rows, data = batch["index"], self.trainer.datamodule  # type: ignore[attr-defined]
        if all(data.is_set_aside(row) for row in rows.tolist()):  # or none of its images could be read
            return Predicted(rows)
        wanted = ("embedding",) if self.predicts_embedding else ()
        embeddings: list[Tensor | None] = []

        def outputs_of(pixels: Tensor) -> dict[str, HeadOutput]:
            features = self.encode(pixels, wanted)
            embeddings.append(cast(Tensor, features["embedding"]).float() if wanted else None)
            return self.decode(features, (pixels.shape[-2], pixels.shape[-1]))

        pixels = self.normalize(batch["image"])
        outputs = self._averaged(pixels, outputs_of(pixels), outputs_of)
        found = {
            name: HeadOutput(o.logits.float(), None if o.hidden is None else o.hidden.float())
            for name, o in outputs.items()
        }
        return Predicted(rows, found, embeddings[0] if len(embeddings) == 1 else mean_vectors(embeddings))

    def _evaluate(self, batch: Batch, batch_idx: int, stage: Literal["val", "test"]) -> dict[str, HeadOutput] | None:
        # A rank with fewer rows than the others gets empty batches at the end.
        if not len(batch["index"]):
            return None
        outputs, losses = self._outputs_and_losses(batch, compared=False)
        if self.views > 1:
            # A loss that compares views sees the same ones in every epoch; all else is of the images as they are.
            generator = torch.Generator().manual_seed(_mix(self.seed, batch_idx))
            losses |= self._outputs_and_losses(self._augmented(batch, generator), compared=True)[1]
        for name, head in self.named_heads():
            scores = head.val_scores if stage == "val" else head.test_scores
            head.calibrating = self.fitting and bool(head.calibrate)
            head.task.update(scores, head, outputs[name], head.target(batch), losses[name])
        return outputs

    def _monitored(self, prefix: str, head: Head, computed: dict[str, Tensor]) -> dict[str, Tensor]:
        """The figures of classes that something looks at; those of all classes would fill the tables."""
        asked = [monitor.removeprefix(prefix) for monitor in monitors_of(self.config) if monitor.startswith(prefix)]
        of_class = [name for name in asked if "/" in name]
        if not of_class:
            return {}
        found = {f"{k}/{name}": value for k, v in head.task.per_class(computed).items() for name, value in v.items()}
        return {f"{prefix}{name}": torch.tensor(float(found[name])) for name in of_class if name in found}

    @property
    def fitting(self) -> bool:
        """Whether this is the validation of a fit, on which outputs learn thresholds."""
        return self._trainer is not None and self.trainer.state.fn == "fit"

    def _finish(self, split: Literal["val", "test"]) -> None:
        row: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        called = self.scored_as if split == "test" else split
        for name, head in self.named_heads():
            scores = head.val_scores if split == "val" else head.test_scores
            computed = head.task.compute(head, scores)
            if split == "val" and self.fitting and not self.trainer.sanity_checking:
                head.task.learn(head, computed)
            head.calibrating = False
            head.results[called] = computed
            prefix = f"{called}/{self.prefix(name)}"
            losses[name] = row[f"{prefix}loss"] = computed["loss"].float()
            figures = head.task.figures(computed)
            if split == "test" and head.original_scores is not None:
                figures["mean_iou_original"] = head.task.figures(head.original_scores.compute())["mean_iou"]
                head.original_scores.reset()
            row |= {f"{prefix}{k}": torch.tensor(v) for k, v in figures.items()}
            scores.reset()
            row |= self._monitored(prefix, head, computed)
        row[f"{called}/loss"] = self._total(losses)
        if self.fitting and not self.trainer.sanity_checking:
            self._observe(row)
        # The counts are summed over ranks already; the mean over equal values only satisfies Lightning's check.
        self.log_dict(row, sync_dist=True)

    # Optimisation and checkpoints

    def _observe(self, row: Mapping[str, Tensor]) -> None:
        """Show the monitored figure to a schedule that follows it; it is the same in all processes."""
        for config in self.trainer.lr_scheduler_configs:
            observe = getattr(config.scheduler, "observe", None)
            if observe is not None and self.config["monitor"] in row:
                observe(float(row[self.config["monitor"]]))

    def configure_callbacks(self) -> list[Callback]:
        """Bring along what freezes the encoder for the first epochs."""
        return [] if self.freezing is None else [self.freezing]

    def configure_optimizers(self) -> Any:
        """Build the optimizer over the parameter groups, and its schedule by steps."""
        if self.configure is None:
            raise RuntimeError("this module was built without an optimizer: it predicts only")
        with nullcontext() if self.freezing is None else self.freezing.lifted():
            groups = parameter_groups(
                self.encoder, [self.heads], self.lr, self.weight_decay, self.encoder_lr_factor, self.encoder_layer_decay
            )
        self.encoder_rates = sorted({group["lr"] for group in groups if group["name"].startswith("encoder")})
        optimizer, schedule = self.configure(groups, *self._steps())
        if notice := getattr(schedule, "notice", ""):
            rank_zero_only(print)(notice)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps(self) -> tuple[int, int]:
        """Optimizer steps of the whole run, and of an epoch, whose last one may be of fewer batches than the others.

        Not ``trainer.estimated_stepping_batches``: it sets up the loaders before a resumed run's state is there, and
        Lightning 2.6 then never gives that state to them.
        """
        trainer = self.trainer
        data = trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            total = int(trainer.estimated_stepping_batches)
            return total, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        of_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        if trainer.max_epochs in (None, -1):
            return int(trainer.estimated_stepping_batches), of_epoch
        steps = of_epoch * trainer.max_epochs
        return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps), of_epoch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a reload needs: config, classes, geometry; leave out what was asked to be left out."""
        if "callbacks" not in checkpoint and self._trainer is not None:
            # With save_weights_only Lightning does not ask the callbacks.
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAverage):
                    checkpoint["state_dict"] = callback.averaged(checkpoint["state_dict"])
        pack(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring an older checkpoint to the present format, and put back encoder weights that it does not hold."""
        upgrade(checkpoint)
        restore_encoder_weights(self, checkpoint)
        if self.fitting:
            put_raw_weights(checkpoint)


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
