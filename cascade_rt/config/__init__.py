"""All settings, as frozen dataclasses read from TOML.

A TOML file has the tables `[cascade]`, `[cascade.crop]` and `[train]`. A missing key keeps its default; an unknown key
is rejected with a suggestion. `CascadeConfig` is stored in the bundle, `TrainConfig` in the checkpoint.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from cascade_rt.common.labels import Target
from cascade_rt.common.plain_file import NotAPlainFileError, read_plain_file
from cascade_rt.common.tensors import LONGEST_SIDE, SHORTEST_SIDE, SIDE_MULTIPLE
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.errors import UsageError

Config = TypeVar("Config")
BoundaryMode = Literal["ste", "ste_matrix", "soft", "hard"]
Comparator = Literal["unet", "unet_plus_plus", "attention_unet", "residual_unet", "dense_unet", "dynamic_unet"]
COMPARATORS: tuple[Comparator, ...] = get_args(Comparator)
"""Networks of Table 1 that MONAI provides; each runs on its own, without a cascade."""
Stage2Network = Literal["focusing", "localization", "multiscale_unet", Comparator]
Interference = Literal["both", "fpd", "fnd", "none"]

Augmentation = Literal["none", "intensity", "full", "wide"]
OverlapOver = Literal["slice", "batch"]
Islands = Literal["all", "largest"]
MOST_CHANNELS = 1 << 20
"""Far more than any network has; much larger counts overflow the libraries' integers."""
MOST_HU = 1_000_000
"""Far beyond any value in a scan."""
SHORTEST_MM, LONGEST_MM = 1e-3, 1e3
"""Limits of plausible pixel sizes and slice spacings."""


@dataclass(frozen=True, slots=True)
class CropConfig:
    """How the organ probability of a slice is turned into the box that stage 2 sees (see `cascade_rt.models.crop`)."""

    threshold: float = 0.5
    """A pixel belongs to the organ if its probability is at least this."""
    margin: int = 20
    """Pixels of context added on each side of the tightest box; the paper's K."""
    grid: int = 32
    """Box sides are rounded up to multiples of this so that boxes of equal size share a batch. A multiple of 16."""
    min_side: int = 64
    """Shortest side of a box, in pixels. A multiple of `grid`, and at least the 64 that the networks take."""
    corner_grid: int = 1
    """Box corners are snapped to multiples of this where the image allows it, so that engines which round differently
    produce the same crop. 1: the box follows every pixel of the organ. `grid` must be a multiple of it."""
    empty_policy: Literal["full", "skip"] = "full"
    """What to do with a slice without organ: `full` sends the whole slice to stage 2, which may find what stage 1
    missed; `skip` does not run stage 2 on it."""

    def __post_init__(self) -> None:
        _require(0.0 < self.threshold < 1.0, "cascade.crop.threshold must lie between 0 and 1", self.threshold)
        _require(
            0 <= self.margin <= LONGEST_SIDE, f"cascade.crop.margin must lie between 0 and {LONGEST_SIDE}", self.margin
        )
        _require(
            0 < self.grid <= LONGEST_SIDE and self.grid % 16 == 0,
            f"cascade.crop.grid must be a multiple of 16, and at most {LONGEST_SIDE}",
            self.grid,
        )
        _require(
            SHORTEST_SIDE <= self.min_side <= LONGEST_SIDE and self.min_side % self.grid == 0,
            "cascade.crop.min_side must be a multiple of cascade.crop.grid, and lie between "
            f"{SHORTEST_SIDE} and {LONGEST_SIDE}",
            self.min_side,
        )
        _require(
            self.corner_grid > 0 and self.grid % self.corner_grid == 0,
            "cascade.crop.corner_grid must divide cascade.crop.grid",
            self.corner_grid,
        )


@dataclass(frozen=True, slots=True)
class CascadeConfig:
    """The two networks and the glue between them: everything inference needs besides the weights."""

    target: Target = "tumor"
    """What stage 2 segments in its crop: the tumor or, if no tumors are labeled, the organ again in finer detail. This
    determines the label it writes: 2 for the tumor; 1 for the organ, replacing the stage-1 result."""
    stage1: Literal["multiscale_unet", "none"] = "multiscale_unet"
    """The network that segments the organ. `none`: no such network; stage 2 sees whole slices."""
    stage2: Stage2Network = "focusing"
    """The network that segments the target. `focusing` is the paper's; `localization` and `multiscale_unet` are its
    ablations in Table 3; the others are comparators from MONAI."""
    interference: Interference = "both"
    """What the focusing modules discover: false positives to subtract (`fpd`), false negatives to add (`fnd`), both
    (the paper) or neither (Figure 10)."""
    saliency: bool = True
    """Whether stage 2 sees the image multiplied by the saliency of the organ probability. If false, it sees the plain
    image."""
    base_width: int = 64
    """Channels of the first encoder block; the others have 2x, 4x, 8x as many. The paper uses 64. A multiple of 8."""
    stage1_base_width: int | None = None
    """Base width of stage 1, if it differs from that of stage 2; None: `base_width`."""
    stage1_stride: Literal[1, 2] = 1
    """Factor by which stage 1 average-pools rows and columns of its input; its logits are upsampled to full resolution
    inside its graph. The paper uses 1. 2 takes a quarter of the work, and a coarse outline of the organ is all that
    stage 1 is needed for: stage 2 sees every pixel either way."""
    window_hu: tuple[float, float] = (-100.0, 240.0)
    """Hounsfield units mapped to 0 and 1; values outside are clamped."""
    norm: Literal["batch", "instance", "group"] = "batch"
    """Normalization after each convolution."""
    bottleneck: Literal["paper", "stan"] = "paper"
    """Which branch feeds which bottleneck path: as in Eq. 3 as printed, or as in the STAN code the paper builds on."""
    stage2_norm_epsilon: float = 1e-5
    """Epsilon added to the variance in the normalization layers of stage 2. The focusing modules see features
    multiplied by a map that is close to 0 nearly everywhere; with PyTorch's default of 1e-5 the small remainder is
    amplified, and its rounding errors with it."""
    min_focusing_channels: int = 4
    """Minimum number of channels of a level of the focusing modules, a multiple of 4. The levels have 4, 2, 1 and 1/2
    times `base_width`, coarse to fine, so with 64 (the paper) any value up to 32 has no effect."""
    saliency_channels: int = 1
    """Hidden channels of the saliency module."""
    stage2_features: Literal["encoder", "decoder"] = "encoder"
    """What the focusing modules read: the encoder of stage 2 (as in the paper's text) or a decoder after it."""
    context_kernel: Literal[1, 3] = 3
    """Kernel of the reduction and fusion convolutions of the context exploration: 3 (the paper) or 1 (PFNet)."""
    islands: Islands = "all"
    """Which connected components of a mask (pancreas and tumor together) are kept: all, or the largest by volume."""
    least_island_ml: float = 0.0
    """Components smaller than this are dropped, in ml, unless they touch the first or last slice, where the scan cuts
    them off."""
    pixel_mm: tuple[float, float] | None = None
    """Smallest and largest pixel side in mm that the networks were trained on; scans outside this range are resampled
    (see `cascade_rt.scans.pixel_grid`). None: unknown; scans are used as they are."""
    slice_mm: tuple[float, float] | None = None
    """Smallest and largest slice spacing in mm in the training data. Recorded only; it has no effect."""
    crop: CropConfig = field(default_factory=CropConfig)

    def __post_init__(self) -> None:
        _require(
            0 < self.base_width <= MOST_CHANNELS and self.base_width % 8 == 0,
            f"cascade.base_width must be a multiple of 8, and at most {MOST_CHANNELS}",
            self.base_width,
        )
        _require(
            self.stage1_base_width is None or 0 < self.stage1_base_width <= MOST_CHANNELS,
            f"cascade.stage1_base_width must lie between 1 and {MOST_CHANNELS}",
            self.stage1_base_width,
        )
        low, high = self.window_hu
        _require(
            -MOST_HU <= low < high <= MOST_HU,
            f"cascade.window_hu must be two numbers between {-MOST_HU} and {MOST_HU}, the lower one first",
            self.window_hu,
        )
        epsilon, channels = self.stage2_norm_epsilon, self.min_focusing_channels
        _require(isfinite(epsilon) and epsilon > 0, "cascade.stage2_norm_epsilon must be a positive number", epsilon)
        _require(
            0 < channels <= MOST_CHANNELS and channels % 4 == 0,
            f"cascade.min_focusing_channels must be a multiple of 4, and at most {MOST_CHANNELS}",
            channels,
        )
        _require(
            0 < self.saliency_channels <= MOST_CHANNELS,
            f"cascade.saliency_channels must lie between 1 and {MOST_CHANNELS}",
            self.saliency_channels,
        )
        for name in ("pixel_mm", "slice_mm"):
            _require_range(f"cascade.{name}", getattr(self, name))
        _require(
            self.stage1 != "none" or not self.saliency,
            "cascade.saliency must be false when cascade.stage1 is none: there is no organ to weight the image by",
            self.saliency,
        )
        least = self.least_island_ml
        _require(isfinite(least) and least >= 0, "cascade.least_island_ml must not be negative", least)
        _require(
            self.finds_organ or (self.islands == "all" and not least),
            "cascade.islands must be all, and cascade.least_island_ml 0, when no organ is segmented: tumors are not"
            " parts of one object",
            (self.islands, least),
        )

    @property
    def stage1_width(self) -> int:
        """Channels of the first encoder block of stage 1."""
        return self.base_width if self.stage1_base_width is None else self.stage1_base_width

    @property
    def stage1_side_multiple(self) -> int:
        """Stage 1 takes images whose height and width are multiples of this."""
        return SIDE_MULTIPLE * self.stage1_stride

    @property
    def finds_organ(self) -> bool:
        """Whether the mask contains the organ at all; without stage 1, a tumor cascade segments only tumors."""
        return self.stage1 != "none" or self.target == "organ"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The three training steps S, I and J and their optimizer. The defaults are the paper's."""

    epochs: tuple[int, int, int] = (2, 4, 50)
    """Epochs of steps S (stages trained separately), I (saliency on, true boxes) and J (predicted boxes)."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum, or AdamW."""
    learning_rate: float = 1e-5
    """Initial learning rate."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-7
    """Weight decay."""
    schedule: Literal["constant", "poly"] = "constant"
    """`poly`: the learning rate is multiplied by (1 - iteration / iterations) ** 0.9."""
    batch_size: int = 1
    """Slices per batch."""
    slices: Literal["tumor", "organ", "all"] = "tumor"
    """Which slices are trained on: those with tumor (the paper), those with organ or tumor, or all."""
    background_share: float = 0.0
    """Slices without organ added to each epoch, as a fraction of the others. They teach stage 1 what is not organ."""
    patch: int = 0
    """Side in pixels of the square patch cropped at random around the organ, a multiple of 32; 0: the whole slice."""
    patch_around: float = 1.0
    """Fraction of the patches from slices with organ that contain the organ's center. The others lie anywhere in the
    slice, so that stage 1 also sees tissue other than the organ in these slices."""
    organ_loss: Literal["dice", "dice_bce"] = "dice"
    """Stage-1 loss: Dice (Eq. 10), or Dice plus cross-entropy. On a slice without organ, Dice alone has no gradient."""
    overlap_over: OverlapOver = "slice"
    """What the Dice and IoU losses are computed over: each slice separately (the paper), or the whole batch as one
    image. On a slice without target the overlap has almost no gradient, so only `batch` makes false positives there
    cost more than their cross-entropy."""
    stage2_weight: float = 0.9
    """Weight of the stage-2 loss in the total (alpha of Eq. 17). 0: stage 2 is not run, and only stage 1 is trained."""
    output_weights: tuple[float, float, float, float] = (0.5, 1.0, 2.0, 4.0)
    """Weights of the four focusing outputs, coarse to fine (2**(4-i) of Eq. 13). The localization output has weight 1,
    and so has the map of a stage-2 network without focusing modules. The authors' code uses 1, 1, 2, 4."""
    legacy_unweighted_bce: bool = False
    """Compute the cross-entropy of the focusing outputs as the authors' code does: a plain mean, no pixel weights."""
    boundary_weight: float = 0.4
    """Weight of the shared-boundary loss in the total (beta of Eq. 17). 0: it is not computed."""
    boundary_mode: BoundaryMode = "ste"
    """What the shared-boundary loss is computed from: the argmax with a straight-through gradient, either that of its
    edges (`ste`) or the much smaller one of the soft matrix (`ste_matrix`); the probabilities (`soft`); or the argmax
    without a gradient, for monitoring only (`hard`)."""
    boundary_from: Literal["S", "I", "J"] = "S"
    """First training step that uses the shared-boundary loss."""
    boundary_classes: Literal[2, 3] = 3
    """Classes of the shared-boundary loss. 3: background, pancreas, tumor. 2: background and the stage-2 target, if
    both stages segment the pancreas."""
    boundary_frame: bool = True
    """Whether the edges of a region along the image border count towards its perimeter. Required for two classes."""
    train_stage1: bool = True
    """If false, stage 1 is frozen and runs in evaluation mode; for runs that start from a trained stage 1."""
    tumor_share: float = 0.0
    """Fraction of the visited slices with organ that contain tumor. Slices are repeated or left out to reach it; the
    epoch length does not change. 0: each slice once."""
    synthetic_tumors: float = 0.0
    """Fraction of the visited slices with a healthy pancreas that get a synthetic tumor, a new one each time; for data
    without labeled tumors (see `cascade_rt.data.synthetic_tumor`)."""
    tumor_recipe: TumorRecipe = field(default_factory=TumorRecipe)
    """What synthetic tumors look like."""
    other_surroundings: float = 0.0
    """Fraction of the visited slices with organ of which only the bounding box of the organ is kept: half of them are
    surrounded by fat, the others by another slice, so that stage 2 learns not to rely on what surrounds the organ."""
    joint: bool = True
    """If false, every epoch is of step S: the stages are trained separately, whatever `epochs` says about I and J."""
    transfer: bool = True
    """Whether the matching weights of stage 1 are copied to stage 2 at the end of step S; the T of Table 3."""
    partial_init: bool = False
    """Whether the initial weights may come from a different network: those that match by name and shape are loaded, the
    rest are initialized at random. If false, all weights must match."""
    joint_crop: Literal["stage1", "stage2"] = "stage1"
    """Which stage's prediction determines the boxes of step J. `stage2`: a first pass is cropped by stage 1, a second
    by the result of the first; for data in which both stages segment the pancreas."""
    margin_jitter: bool = False
    """Whether each side of a training box gets, half of the time, a random margin between 0 and twice `crop.margin`."""
    augmentation: Augmentation = "none"
    """Random augmentation of the slices: none; HU scaling and shift plus noise (`intensity`); also rotation and zoom
    (`full`); or all of these, mostly in wider ranges, plus contrast-medium variation (`wide`), for models trained on
    one hospital's scans and used on those of others. See `cascade_rt.data.augmentation` for the ranges."""
    mixed_precision: bool = False
    """Whether forward passes run in bfloat16 where that is safe; weights and losses stay in float32."""
    compiled: bool = False
    """Whether the trained networks are compiled first (torch.compile). This needs a C++ compiler and takes a minute or
    two, and saves about a third of the time of each iteration on a CPU."""
    seed: int = 0
    """Seed of the initial weights, the slice order, the patches and the augmentation."""

    def __post_init__(self) -> None:
        _require(
            min(self.epochs) >= 0 and sum(self.epochs) > 0,
            "train.epochs must not be negative, and not all 0",
            self.epochs,
        )
        _require(self.batch_size > 0, "train.batch_size must be positive", self.batch_size)
        _require(0 <= self.seed < 1 << 63, "train.seed must lie between 0 and 2^63 - 1", self.seed)
        _require(0 <= self.momentum < 1, "train.momentum must lie between 0 and 1", self.momentum)
        _require(
            isfinite(self.learning_rate) and self.learning_rate > 0,
            "train.learning_rate must be positive",
            self.learning_rate,
        )
        for name in ("background_share", "weight_decay", "stage2_weight", "boundary_weight"):
            value = getattr(self, name)
            _require(isfinite(value) and value >= 0, f"train.{name} must not be negative", value)
        _require(
            all(isfinite(weight) and weight >= 0 for weight in self.output_weights),
            "train.output_weights must not be negative",
            self.output_weights,
        )
        for name in ("tumor_share", "patch_around", "synthetic_tumors", "other_surroundings"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"train.{name} must lie between 0 and 1", value)
        _require(
            self.stage2_weight > 0 or self.train_stage1,
            "train.stage2_weight must be positive when train.train_stage1 is false: nothing would be trained",
            self.stage2_weight,
        )
        _require(
            self.boundary_frame or self.boundary_classes == 3,
            "train.boundary_frame must be true when train.boundary_classes is 2: without the frame, two classes share"
            " their whole boundary, whatever their shape",
            self.boundary_frame,
        )
        _require(
            self.patch == 0 or (64 <= self.patch <= LONGEST_SIDE and self.patch % 32 == 0),
            f"train.patch must be 0 or a multiple of 32 from 64 to {LONGEST_SIDE}",
            self.patch,
        )


Preset = Literal["paper", "authors_code", "practical"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Variant = Literal["u", "m", "m-p", "m-p-t", "m-p-t-l", "m-p-t-l-f", "fpd", "fnd", "no-interference"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
"""The rows of Table 3, the last of which is the complete method, followed by those of Figure 10."""
_MOST_BYTES = 1 << 20
_TABLES = ("cascade", "train")
_FOLDER = Path(__file__).parents[1] / "assets" / "configs"


def load_config(
    path: Path | None = None,
    preset: Preset = "practical",
    *,
    variant: Variant | None = None,
    network: Comparator | None = None,
) -> tuple[CascadeConfig, TrainConfig]:
    """Load a config by layering TOML files: the preset, then the variant, then the user's file.

    Args:
        path: The user's file. Keys it leaves out fall back to the variant, the preset, or the default.
        preset: `paper` uses the paper's settings: SGD, learning rate 1e-5, batch size 1, 56 epochs; from random weights
            this needs the paper's 110,000 iterations. `authors_code` is the same with the output weights of the
            authors' code. `practical` trains within hours on a small machine.
        variant: A row of Table 3 or Figure 10; None: the complete method.
        network: A single network of Table 1 instead of the cascade.

    Raises:
        UsageError: The file cannot be read, is not TOML, or contains an unknown key or invalid value; or both a variant
            and a network are given.
    """
    if variant is not None and network is not None:
        raise UsageError("a variant changes the cascade, a network replaces it; choose one of them")
    documents = [_read_document(_FOLDER / f"{preset}.toml")]
    if variant is not None:
        documents.append(_read_document(_FOLDER / f"{variant}.toml"))
    if network is not None:
        documents.append(
            _lay_over([_read_document(_FOLDER / "network.toml"), {"cascade": {"stage2": network}}], "config")
        )
    if path is not None:
        documents.append(_read_document(path))
    try:
        cascade, train = (_lay_over([document.get(table, {}) for document in documents], table) for table in _TABLES)
        return from_mapping(CascadeConfig, cascade, "cascade"), from_mapping(TrainConfig, train, "train")
    except UsageError as error:
        if path is None:
            raise
        # The package's own files are valid, so the error must be in the user's file.
        raise UsageError(f"{path}: {error}") from error


def _read_document(path: Path) -> dict[str, Any]:
    document = read_toml(path)
    unknown = set(document) - set(_TABLES)
    if unknown:
        raise UsageError(f"{path}: unknown table [{min(unknown)}]; a config has the tables [cascade] and [train]")
    return document


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises UsageError if it is missing, unreadable or not valid TOML."""
    try:
        return tomllib.loads(read_plain_file(path, _MOST_BYTES, follow_links=True).decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); choose an existing TOML file") from error
    except NotAPlainFileError as error:
        raise UsageError(f"{path}: cannot be read (it {error}); choose an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: is not a TOML file ({error})") from error


def _lay_over(tables: Sequence[Any], where: str) -> dict[str, Any]:
    """Merge tables recursively; later ones override earlier ones."""
    merged: dict[str, Any] = {}
    for table in tables:
        if not isinstance(table, dict):
            raise UsageError(f"{where} must be a table, got {table!r}")
        for key, value in table.items():
            nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = _lay_over([merged[key], value], f"{where}.{key}") if nested else value
    return merged


def to_mapping(config: object) -> dict[str, Any]:
    """Convert a config to plain JSON-compatible values, which `from_mapping` reads back."""
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"config must be a dataclass instance, got {config!r}")
    return asdict(config)


def from_mapping(cls: type[Config], values: Mapping[str, Any], where: str, *, complete: bool = False) -> Config:
    """Build a config dataclass from plain values.

    Args:
        cls: The dataclass to build.
        values: Its fields, with nested tables as mappings and tuples as lists. Missing fields keep their default.
        where: Name of the table for error messages, such as `cascade.crop`.
        complete: Whether to reject missing fields, also in nested tables.

    Raises:
        UsageError: A key is unknown or, if `complete`, missing, or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} must be a table, got {values!r}")
    known = [entry.name for entry in fields(cls)]  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known)}"
            raise UsageError(f"unknown key {where}.{key}{hint}")
    missing = [key for key in known if key not in values]
    if complete and missing:
        raise UsageError(f"{where} is missing the keys {', '.join(missing)}")
    return cls(**{key: _typed(hints[key], value, f"{where}.{key}", complete) for key, value in values.items()})


def _typed(hint: Any, value: Any, where: str, complete: bool) -> Any:
    """Check a plain value against a field's type and return it converted to that type."""
    origin, options = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return from_mapping(hint, value, where, complete=complete)  # type: ignore[arg-type]
    if origin is Literal:
        known = any(type(value) is type(option) and value == option for option in options)
        _require(known, f"{where} must be one of {', '.join(map(str, options))}", value)
        return value
    if origin is tuple:
        ok = isinstance(value, (list, tuple)) and len(value) == len(options)
        _require(ok, f"{where} must be a list of {len(options)} values", value)
        return tuple(_typed(option, item, where, complete) for option, item in zip(options, value, strict=True))
    if value is not None and options and get_origin(options[0]) is tuple:
        return _typed(options[0], value, where, complete)
    accepted = options or (hint,)
    if float in accepted and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if not any(type(value) is option for option in accepted):
        names = " or ".join("nothing" if option is type(None) else option.__name__ for option in accepted)
        raise UsageError(f"{where} must be of type {names}, got {value!r}")
    return value


def _require(condition: bool, rule: str, value: object) -> None:
    if not condition:
        raise UsageError(f"{rule}, got {value!r}")


def _require_range(where: str, sides_mm: tuple[float, float] | None) -> None:
    if sides_mm is not None:
        shortest, longest = sides_mm
        _require(
            SHORTEST_MM <= shortest <= longest <= LONGEST_MM,
            f"{where} must be two numbers between {SHORTEST_MM:g} and {LONGEST_MM:g} mm, the smaller one first",
            sides_mm,
        )
