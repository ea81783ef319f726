"""Every number a person may want to change, in frozen dataclasses read from TOML.

A TOML file has the tables `[cascade]`, `[cascade.crop]` and `[train]`; a key it leaves out keeps its default, a key
that does not exist is refused with a suggestion. `CascadeConfig` travels in the bundle, `TrainConfig` in the
checkpoint.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from cascade_rt.common.plain_file import NotAPlainFileError, read_plain_file
from cascade_rt.common.tensors import LONGEST_SIDE, SHORTEST_SIDE, SIDE_MULTIPLE
from cascade_rt.config.tumor_recipe import TumorRecipe
from cascade_rt.errors import UsageError

Config = TypeVar("Config")
BoundaryMode = Literal["ste", "ste_matrix", "soft", "hard"]
Comparator = Literal["unet", "unet_plus_plus", "attention_unet", "residual_unet", "dense_unet", "dynamic_unet"]
COMPARATORS: tuple[Comparator, ...] = get_args(Comparator)
"""Networks of Table 1 that MONAI keeps; each stands on its own, without a cascade."""
Stage2Network = Literal["focusing", "localization", "multiscale_unet", Comparator]
Interference = Literal["both", "fpd", "fnd", "none"]
Target = Literal["tumor", "organ"]
Augmentation = Literal["none", "intensity", "full", "wide"]
OverlapOver = Literal["slice", "batch"]
Islands = Literal["all", "largest"]
MOST_CHANNELS = 1 << 20
"""Far more than any network has; the libraries have no numbers for much more."""
MOST_HU = 1_000_000
"""Far from anything that a scan holds."""
SHORTEST_MM, LONGEST_MM = 1e-3, 1e3
"""No pixel and no distance of slices is smaller or larger."""


@dataclass(frozen=True, slots=True)
class CropConfig:
    """How the organ probability of a slice becomes the box that stage 2 sees (see `cascade_rt.models.crop`)."""

    threshold: float = 0.5
    """A pixel belongs to the organ where its probability is at least this."""
    margin: int = 20
    """Pixels of context added on each side of the tightest box; the paper's K."""
    grid: int = 32
    """Box sides are grown to multiples of this, so that boxes of equal size share a batch. A multiple of 16."""
    min_side: int = 64
    """Shortest side of a box, in pixels. A multiple of `grid`, and at least the 64 that the networks take."""
    corner_grid: int = 1
    """Corners of a box lie on multiples of this as far as the image goes, so that engines which round differently cut
    alike. 1: the box follows every pixel of the organ. `grid` must be a multiple of it."""
    empty_policy: Literal["full", "skip"] = "full"
    """A slice without organ: `full` sends all of it to stage 2, which may find what stage 1 missed; `skip` does not."""

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
    """The two networks and the glue between them: all that inference needs to know besides the weights."""

    target: Target = "tumor"
    """What stage 2 finds in its crop: the tumor, or, where no tumors are labelled, the organ once more and finer. The
    label it writes follows from it: 2, or 1 in place of what stage 1 found."""
    stage1: Literal["multiscale_unet", "none"] = "multiscale_unet"
    """The network that finds the organ. `none`: there is no such network, stage 2 sees whole slices."""
    stage2: Stage2Network = "focusing"
    """The network that finds the target. `focusing` is the paper's; `localization` and `multiscale_unet` are its steps
    in Table 3; the others are networks it is compared with, from MONAI."""
    interference: Interference = "both"
    """What the focusing modules discover: distraction to subtract (`fpd`), missed tumor to add (`fnd`), both (the
    paper) or none of it (Figure 10)."""
    saliency: bool = True
    """Whether stage 2 sees the image times the saliency of the organ probability; off, it sees the plain image."""
    base_width: int = 64
    """Channels of the first encoder block; the others follow as 2x, 4x, 8x. 64 is the paper's. A multiple of 8."""
    stage1_base_width: int | None = None
    """The same of stage 1 alone, where it is wider or narrower than stage 2; None: `base_width`."""
    stage1_stride: Literal[1, 2] = 1
    """Pixels that stage 1 averages into one along rows and columns before it computes; its logits are brought back to
    all pixels inside its graph. 1 is the paper's. 2 is a quarter of the work, on a grid coarser than what it looks for
    is rough: stage 2 sees every pixel either way."""
    window_hu: tuple[float, float] = (-100.0, 240.0)
    """Hounsfield units mapped to 0 and 1; values outside are clamped."""
    norm: Literal["batch", "instance", "group"] = "batch"
    """Normalisation after each convolution."""
    bottleneck: Literal["paper", "stan"] = "paper"
    """Which branch feeds which bottleneck path: Eq. 3 as printed, or as in the STAN code it builds on."""
    stage2_norm_epsilon: float = 1e-5
    """Added to the variance that a normalisation of stage 2 divides by. The focusing modules look at features times a
    map that is next to 0 nearly everywhere; 1e-5, PyTorch's own, blows up what little is left, its rounding with it."""
    min_focusing_channels: int = 4
    """Fewest channels of a level of the focusing modules, a multiple of 4. They have 4, 2, 1 and 1/2 times
    `base_width`, coarse to fine, so with 64 (the paper) anything up to 32 changes nothing."""
    saliency_channels: int = 1
    """Hidden channels of the saliency module."""
    stage2_features: Literal["encoder", "decoder"] = "encoder"
    """What the focusing modules read: the encoder of stage 2 (the paper's text) or a decoder behind it."""
    context_kernel: Literal[1, 3] = 3
    """Kernel of the reduction and fusion convolutions of the context exploration: 3 (the paper) or 1 (PFNet)."""
    islands: Islands = "all"
    """Which pieces of a mask are kept, pancreas and tumor together: all of them, or the one of the largest volume."""
    least_island_ml: float = 0.0
    """Pieces of less than this are dropped, in ml, unless they reach the first or last slice, where scans cut off."""
    pixel_mm: tuple[float, float] | None = None
    """Shortest and longest side in mm of the pixels that the networks were trained on; scans with others are resampled
    (see `cascade_rt.scans.pixel_grid`). None: not known, scans are taken as they are."""
    slice_mm: tuple[float, float] | None = None
    """Smallest and largest distance in mm between the slices trained on; it is recorded, and changes nothing."""
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
            "cascade.saliency must be false where cascade.stage1 is none: there is no organ to weigh the image by",
            self.saliency,
        )
        least = self.least_island_ml
        _require(isfinite(least) and least >= 0, "cascade.least_island_ml must not be negative", least)
        _require(
            self.finds_organ or (self.islands == "all" and not least),
            "cascade.islands must be all, and cascade.least_island_ml 0, where the organ is not looked for: tumors are"
            " no pieces of one thing",
            (self.islands, least),
        )

    @property
    def stage1_width(self) -> int:
        """Channels of the first encoder block of stage 1."""
        return self.base_width if self.stage1_base_width is None else self.stage1_base_width

    @property
    def stage1_side_multiple(self) -> int:
        """Rows and columns that stage 1 takes are multiples of this."""
        return SIDE_MULTIPLE * self.stage1_stride

    @property
    def finds_organ(self) -> bool:
        """Whether the organ is in the mask at all; without stage 1 a cascade for tumors finds nothing but them."""
        return self.stage1 != "none" or self.target == "organ"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The three training steps S, I and J and their optimiser. The defaults are the numbers of the paper."""

    epochs: tuple[int, int, int] = (2, 4, 50)
    """Epochs of S (stages apart), I (saliency on, true boxes) and J (predicted boxes)."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum, or AdamW."""
    learning_rate: float = 1e-5
    """Learning rate at the start."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-7
    """Weight decay."""
    schedule: Literal["constant", "poly"] = "constant"
    """`poly`: learning rate times (1 - iteration / iterations) ** 0.9."""
    batch_size: int = 1
    """Slices in a batch."""
    slices: Literal["tumor", "organ", "all"] = "tumor"
    """Which slices are trained on: those with tumor (the paper), with organ or tumor, or every one."""
    background_share: float = 0.0
    """Slices without organ added to each epoch, as a share of the others. They teach stage 1 what is not an organ."""
    patch: int = 0
    """Side of the square patch cut at random around the organ, in pixels, a multiple of 32; 0: the whole slice."""
    patch_around: float = 1.0
    """Share of the patches of slices with organ that hold its middle; the others lie anywhere in the slice, so that
    stage 1 sees what is not the organ in patients that have one."""
    organ_loss: Literal["dice", "dice_bce"] = "dice"
    """Stage-1 loss: Dice (Eq. 10), or Dice plus cross-entropy. On a slice without organ Dice alone has no gradient."""
    overlap_over: OverlapOver = "slice"
    """What Dice and IoU of the losses are computed over: each slice on its own (the paper), or all of a batch as one
    image. On a slice without target the overlap has next to no gradient, so there only `batch` makes false alarms cost
    more than their cross-entropy."""
    stage2_weight: float = 0.9
    """Weight of the stage-2 loss in the total; alpha of Eq. 17. 0: stage 2 does not run, and stage 1 learns alone."""
    output_weights: tuple[float, float, float, float] = (0.5, 1.0, 2.0, 4.0)
    """Weights of the four focusing outputs, coarse to fine; 2**(4-i) of Eq. 13. The localisation output weighs 1, and
    so does the map of a stage-2 network without focusing modules. The authors' code has 1, 1, 2, 4."""
    legacy_unweighted_bce: bool = False
    """Cross-entropy of the focusing outputs as the authors' code computes it: the plain mean, no pixel weights."""
    boundary_weight: float = 0.4
    """Weight of the shared-boundary loss in the total; beta of Eq. 17. 0: it is not computed."""
    boundary_mode: BoundaryMode = "ste"
    """What the shared-boundary loss is computed from: the argmax, with the gradient of its edges (`ste`) or the much
    smaller one of the soft matrix (`ste_matrix`); the probabilities (`soft`); or the argmax without a gradient, to be
    watched only (`hard`)."""
    boundary_from: Literal["S", "I", "J"] = "S"
    """First training step with the shared-boundary loss."""
    boundary_classes: Literal[2, 3] = 3
    """Classes of the shared-boundary loss. 3: background, pancreas, tumor. 2: background and what stage 2 looks for,
    where both stages look for the pancreas."""
    boundary_frame: bool = True
    """Whether the edges of a region on the image frame count to its perimeter. Two classes need them."""
    train_stage1: bool = True
    """Off, stage 1 keeps its weights and runs as at test time: for a run that starts from a trained one."""
    tumor_share: float = 0.0
    """Share of the visited slices that hold tumor, of those with organ; slices are repeated and left out for it, an
    epoch keeps its length. 0: each slice once."""
    synthetic_tumors: float = 0.0
    """Share of the visited slices with a healthy pancreas that get a synthetic tumor, a new one each time; for data in
    which no tumor is labelled (see `cascade_rt.data.synthetic_tumor`)."""
    tumor_recipe: TumorRecipe = field(default_factory=TumorRecipe)
    """What synthetic tumors look like."""
    joint: bool = True
    """Off, every epoch is of step S: the stages are trained apart, whatever `epochs` says of I and J."""
    transfer: bool = True
    """Whether stage 2 takes over the weights of stage 1, as far as they fit, when step S ends; the T of Table 3."""
    partial_init: bool = False
    """Whether the weights to start from may be those of another network: what fits by name and shape is taken, the rest
    starts at random. Off, they must fit whole."""
    joint_crop: Literal["stage1", "stage2"] = "stage1"
    """Whose prediction the boxes of step J follow. `stage2`: a first pass cut by stage 1, then one cut by what that
    found; for data in which both stages look for the pancreas."""
    margin_jitter: bool = False
    """Whether each side of a training box has, every other time, a random margin of 0 to twice `crop.margin`."""
    augmentation: Augmentation = "none"
    """How slices are changed at random: not at all; HU scaled and shifted, and noise (`intensity`); or also turned and
    enlarged (`full`); or all of it by more, with what contrast medium does (`wide`), for one hospital's scans that are
    to do for others. By how much stands in `cascade_rt.data.augmentation`."""
    mixed_precision: bool = False
    """Forward passes in bfloat16 where that is safe; weights and losses stay float32."""
    compiled: bool = False
    """Whether the networks that are trained are compiled first (torch.compile): needs a C++ compiler and a minute or
    two, and saves about a third of each iteration on a CPU."""
    seed: int = 0
    """Seed of the initial weights, of the order of the slices, of the patches and of the augmentation."""

    def __post_init__(self) -> None:
        _require(
            min(self.epochs) >= 0 and sum(self.epochs) > 0,
            "train.epochs must be 0 or more each, and not all 0",
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
        for name in ("tumor_share", "patch_around", "synthetic_tumors"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"train.{name} must lie between 0 and 1", value)
        _require(
            self.stage2_weight > 0 or self.train_stage1,
            "train.stage2_weight must be positive where train.train_stage1 is false: nothing would be trained",
            self.stage2_weight,
        )
        _require(
            self.boundary_frame or self.boundary_classes == 3,
            "train.boundary_frame must be true where train.boundary_classes is 2: without the frame two classes share"
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
"""The rows of Table 3, of which the last is the whole method, then those of Figure 10."""
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
    """Lay TOML files over one another: the preset, the variant, then a file of one's own.

    Args:
        path: The file; what it leaves out keeps the number of the variant, of the preset, or the default.
        preset: `paper` is the paper's: SGD, learning rate 1e-5, batch 1, 56 epochs; from random weights that needs its
            110,000 iterations. `authors_code` is the same with the output weights of the authors' code. `practical`
            learns within hours on a small machine.
        variant: A row of Table 3 or Figure 10; none: the whole method.
        network: A network of Table 1 on its own, in place of the cascade.

    Raises:
        UsageError: The file cannot be read, is not TOML, or holds a key or a value that does not exist; or both a
            variant and a network are asked for.
    """
    if variant is not None and network is not None:
        raise UsageError("a variant is one of the cascade, a network stands on its own; ask for one of them")
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
        # The files of the package are right: what is wrong stands in the one that the user names.
        raise UsageError(f"{path}: {error}") from error


def _read_document(path: Path) -> dict[str, Any]:
    document = read_toml(path)
    unknown = set(document) - set(_TABLES)
    if unknown:
        raise UsageError(f"{path}: unknown table [{min(unknown)}]; a config has the tables [cascade] and [train]")
    return document


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; UsageError where it cannot be read or is none."""
    try:
        return tomllib.loads(read_plain_file(path, _MOST_BYTES, follow_links=True).decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); name an existing TOML file") from error
    except NotAPlainFileError as error:
        raise UsageError(f"{path}: cannot be read (it {error}); name an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: is not a TOML file ({error})") from error


def _lay_over(tables: Sequence[Any], where: str) -> dict[str, Any]:
    """Merge tables, the later over the earlier, and so the tables in them."""
    merged: dict[str, Any] = {}
    for table in tables:
        if not isinstance(table, dict):
            raise UsageError(f"{where} must be a table, got {table!r}")
        for key, value in table.items():
            nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = _lay_over([merged[key], value], f"{where}.{key}") if nested else value
    return merged


def to_mapping(config: object) -> dict[str, Any]:
    """Turn a config into plain values that JSON can hold: what `from_mapping` reads back."""
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"config must be a dataclass instance, got {config!r}")
    return asdict(config)


def from_mapping(cls: type[Config], values: Mapping[str, Any], where: str, *, complete: bool = False) -> Config:
    """Build a config dataclass from plain values.

    Args:
        cls: The dataclass to build.
        values: Its fields, nested tables as mappings, tuples as lists. Missing fields keep their default.
        where: Name of the table in messages, such as `cascade.crop`.
        complete: Refuse a table, or one nested in it, that leaves a field out.

    Raises:
        UsageError: A key is unknown or, where all are needed, missing, or a value has the wrong type.
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
        raise UsageError(f"{where} misses the keys {', '.join(missing)}")
    return cls(**{key: _typed(hints[key], value, f"{where}.{key}", complete) for key, value in values.items()})


def _typed(hint: Any, value: Any, where: str, complete: bool) -> Any:
    """Check a plain value against a field's type and return it in that type."""
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
