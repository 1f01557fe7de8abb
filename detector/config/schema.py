"""Every setting with its type, default, unit and range.

The defaults are the modern R-CNN recipe with the C4 network (detectron2's configuration of the published
ResNet-101 C4) where that names a value. Sections are frozen and know no keys beyond those written here.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from detector.config.data_schema import DataConfig
from detector.config.section import (
    Count,
    CountOrZero,
    Fraction,
    Name,
    NotNegative,
    PartOfOne,
    PartOfRun,
    Pixels,
    Positive,
    Section,
    Triple,
)

Stage = Literal["conv1", "conv2_x", "conv3_x", "conv4_x", "conv5_x"]
_STAGES: tuple[Stage, ...] = ("conv1", "conv2_x", "conv3_x", "conv4_x", "conv5_x")
Depth = Literal[18, 34, 50, 101, 152]
BestMetric = Literal[
    "coco.AP", "coco.AP50", "coco.AP75", "coco.APs", "coco.APm", "coco.APl", "coco.AR100", "voc07.mAP50", "voc.mAP50"
]


class BackboneConfig(Section):
    """The residual network (He et al. 2015)."""

    depth: Depth = 101
    norm: Literal["frozen_batch", "batch", "sync_batch", "group"] = Field(
        "frozen_batch",
        description="frozen_batch and batch fit ImageNet weights; group trains well from scratch; batch needs "
        "more than one region or cell a batch; in torchvision's classic networks frozen_batch freezes the norms of "
        "model.weights, and nothing else changes them",
    )
    frozen_stages: Annotated[
        Annotated[int, Field(ge=0, le=4), Tag("number")] | Annotated[tuple[Stage, ...], Tag("names")],
        Discriminator(lambda value: "names" if isinstance(value, list | tuple) else "number"),
    ] = Field(
        2,
        description="stages that are not trained: their names, or how many leading ones: 1 is conv1, 2 adds "
        "conv2_x, 4 adds conv4_x",
    )
    stride_in_1x1: bool = Field(
        True, description="stride 2 in a stage's first 1x1 convolution (caffe, the paper) or in its 3x3 (torchvision)"
    )

    @property
    def frozen(self) -> tuple[Stage, ...]:
        """The names of ``frozen_stages``."""
        names = self.frozen_stages
        return _STAGES[:names] if isinstance(names, int) else names


class ClassifierConfig(Section):
    """The network of pretrain.py."""

    network: Literal[
        "resnet", "cifar", "lenet", "torchvision:alexnet", "torchvision:vgg16", "torchvision:googlenet",
        "torchvision:inception_v3",
    ] = Field(
        "resnet", description="resnet is model.backbone, which a detector can start from; cifar: He et al., section 4.2"
    )  # fmt: skip
    depth: Annotated[int, Field(ge=8, le=1202)] = Field(
        20, description="of cifar: 6n + 2 layers, such as 20, 56, 110; that of resnet is model.backbone.depth"
    )
    block: Literal["residual", "plain", "preactivation"] = Field(
        "residual", description="of resnet and cifar; plain has no shortcuts; preactivation: He et al. 2016"
    )
    shortcut: Literal["padding", "projection"] | None = Field(
        None,
        description="where shapes change: zeros for the new channels (option A) or a 1x1 convolution (B); null is "
        "padding for cifar and projection for resnet",
    )
    activation: Literal["relu", "elu"] = Field("relu", description="of preactivation")
    channels: Literal[1, 3] = Field(3, description="of the input; 1 sees images in gray")
    label_smoothing: PartOfOne = Field(0.0, description="share of the target spread over all classes")

    @model_validator(mode="after")
    def _network_exists(self) -> Self:
        # Another depth may be left over from the configuration that this one is based on.
        if self.network == "resnet" and self.depth in get_args(Depth):
            raise ValueError(f"depth {self.depth} is of network cifar; set model.backbone.depth")
        if (self.depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2, such as 20, 32, 44, 56 or 110, got {self.depth}")
        if self.activation != "relu" and self.block != "preactivation":
            raise ValueError(f"activation {self.activation} is of block preactivation, but block is {self.block}")
        if self.shortcut is not None and self.block == "plain":
            raise ValueError(f"shortcut {self.shortcut} is given, but block plain has none")
        if not self.has_stages and (self.block != "residual" or self.shortcut is not None):
            raise ValueError(f"block and shortcut are of resnet and cifar, but network is {self.network}")
        return self

    @property
    def has_stages(self) -> bool:
        """Whether it is a residual network or its plain twin, with norms and stages of ours."""
        return self.network in ("resnet", "cifar")


class AnchorConfig(Section):
    """Reference boxes of the RPN: every size times every aspect ratio at each cell of the stride-16 map."""

    sizes: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100)] = Field(
        (32.0, 64.0, 128.0, 256.0, 512.0), description="square roots of the areas, in pixels of the resized image"
    )
    aspect_ratios: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100)] = Field(
        (0.5, 1.0, 2.0), description="height / width"
    )


class RPNConfig(Section):
    """Region proposal network: matching, sampling and selection of proposals."""

    foreground_iou: Fraction = 0.7
    background_iou: Fraction = 0.3
    anchors_per_image: Count = Field(256, description="anchors that the losses sample in an image")
    foreground_fraction: Fraction = 0.5
    train_candidates: Count = Field(12000, description="best anchors kept before NMS in training")
    train_proposals: Count = Field(2000, description="proposals kept after NMS in training")
    test_candidates: Count = Field(6000, description="best anchors kept before NMS in evaluation")
    nms_iou: Fraction = 0.7

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> Self:
        if self.background_iou > self.foreground_iou:
            raise ValueError("background_iou must not exceed foreground_iou")
        return self


class RoIHeadConfig(Section):
    """conv5_x on every region: pooling, sampling, decoding of detections."""

    pooled_size: Annotated[int, Field(ge=2, le=64)] = Field(14, description="side of a pooled region, in cells")
    sampling_ratio: Annotated[int, Field(ge=0, le=16)] = Field(
        0, description="RoIAlign samples a bin and axis; 0 takes as many as the region is large"
    )
    regions_per_image: Count = Field(512, description="regions that the losses sample in an image")
    foreground_fraction: Fraction = 0.25
    foreground_iou: Fraction = 0.5
    box_weights: tuple[Positive, Positive, Positive, Positive] = (10.0, 10.0, 5.0, 5.0)
    score_threshold: Fraction = Field(0.05, description="detections below this are dropped before NMS")
    nms_iou: Fraction = 0.5
    detections_per_image: Count = 100


class ModelConfig(Section):
    """The network and the weights it starts from."""

    backbone: BackboneConfig = BackboneConfig()
    classifier: ClassifierConfig | None = Field(None, description="for pretrain.py; a detector has none")
    weights: Name | None = Field(
        None, description="null (random), a weights file, or torchvision:NAME such as ResNet101_Weights.IMAGENET1K_V1"
    )
    pixel_order: Literal["rgb", "bgr"] = "bgr"
    pixel_mean: Triple = Field((103.53, 116.28, 123.675), description="in pixel_order, for values 0..255")
    pixel_std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    anchors: AnchorConfig = AnchorConfig()
    rpn: RPNConfig = RPNConfig()
    roi_head: RoIHeadConfig = RoIHeadConfig()

    @property
    def classifier_depth(self) -> int:
        """Layers of a classifier with stages: its own of a network for small images, else the backbone's."""
        classifier = self.as_classifier
        return classifier.depth if classifier.network == "cifar" else self.backbone.depth

    @property
    def as_classifier(self) -> ClassifierConfig:
        """``classifier``, or what it is by default."""
        return self.classifier or ClassifierConfig()


class ScheduleConfig(Section):
    """Learning rate over the iterations, as a factor on training.learning_rate."""

    kind: Literal["steps", "cosine", "constant"] = "steps"
    steps: tuple[Count | PartOfRun, ...] = Field(
        (), description="when the rate is multiplied by factor: iterations, or fractions of the whole training"
    )
    factor: Positive = 0.1
    warmup_iterations: CountOrZero = 1000
    warmup_factor: Fraction = Field(0.001, description="the rate rises linearly from this factor")

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError("steps must rise")
        if len({step < 1 for step in self.steps}) > 1:
            raise ValueError("steps must be all iterations or all fractions of the training")
        if self.steps and self.kind != "steps":
            raise ValueError(f"steps are given but kind is {self.kind}")
        return self


class TrainingConfig(Section):
    """Optimisation. One iteration is one update from one whole batch, on any number of processes."""

    iterations: Count = 90000
    epochs: Positive | None = Field(None, description="passes over data.train, instead of iterations")
    batch_size: Count = Field(16, description="images an update, over all processes and micro-batches")
    micro_batch_size: Count | None = Field(
        None, description="images computed at once by a process; null is its whole share of the batch"
    )
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.02
    body_rate: Positive = Field(
        1.0, description="factor on learning_rate for all that pretrained weights fill; 0.1 changes them little"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of sgd")
    nesterov: bool = Field(False, description="of sgd: Nesterov's momentum")
    weight_decay: NotNegative = Field(1e-4, description="of convolutions and linear layers; norms have none")
    gradient_clip: Positive | None = Field(None, description="largest norm of the whole gradient")
    on_nonfinite_loss: Literal["error", "skip"] = Field(
        "error", description="stop the run, or leave that update out, at most three in a row"
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="average the weights over the updates, such as 0.9998; the average is evaluated and saved"
    )
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    log_every: Count = Field(20, description="iterations")
    checkpoint_every: CountOrZero = Field(5000, description="iterations; 0 saves only at the end or when stopped")
    keep_checkpoints: Annotated[int, Field(ge=2, le=1000)] = Field(
        2, description="of the newest; that of the best evaluation stays, too"
    )
    keep_every: CountOrZero = Field(0, description="checkpoints of multiples of this iteration stay; 0 for none")
    evaluate_every: CountOrZero = Field(5000, description="iterations; 0 never evaluates, not even at the end")
    best_metric: BestMetric | None = Field(
        None, description="ranks evaluations; null is COCO's AP, or VOC's where that does not run"
    )
    early_stopping_patience: CountOrZero = Field(
        0, description="stop after so many evaluations without a better one; 0 never stops early"
    )
    process_timeout: Count = Field(600, description="seconds after which a process that does not answer counts as lost")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}")
        if self.early_stopping_patience and not self.evaluate_every:
            raise ValueError("early_stopping_patience needs evaluations, but evaluate_every is 0")
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs optimizer sgd with a momentum")
        return self


class EvaluationConfig(Section):
    """How detections are made and scored on data.val."""

    metrics: Annotated[tuple[Literal["coco", "voc07", "voc"], ...], Field(min_length=1)] = ("coco",)
    backend: Literal["fast", "pycocotools"] = Field(
        "fast", description="who computes COCO's metrics; the numbers are equal to the last bit"
    )
    proposals: Count = Field(1000, description="proposals an image that reach the head (the paper: 300)")
    batch_size: Count = Field(1, description="images computed at once by a process; 8 or so fills a GPU")
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(None, description="null is training.precision")
    short_sides: tuple[Pixels, ...] = Field((), description="several sizes of each image; () is resize.test_short_side")
    flip: bool = Field(False, description="detect in the mirrored image, too")
    box_refinement: bool = Field(False, description="pool again from each region's box (paper: with nms_iou 0.3)")
    box_voting: bool = Field(False, description="average each kept box with those of its class that NMS removed")


class Config(Section):
    """All settings of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    output_dir: Name | None = Field(None, description="the run's folder; null is runs/<name of the config file>")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto is cuda where there is one")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _best_metric_runs(self) -> Self:
        best = self.training.best_metric
        if best is not None and best.split(".")[0] not in self.evaluation.metrics:
            raise ValueError(f"training.best_metric is {best}, but evaluation.metrics lacks {best.split('.')[0]}")
        return self
