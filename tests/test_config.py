"""Configs are read from TOML: what is left out keeps its default, and what cannot be meant is refused by name."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.common.tensors import SHORTEST_SIDE
from cascade_rt.config import (
    COMPARATORS,
    PRESETS,
    VARIANTS,
    CascadeConfig,
    Comparator,
    CropConfig,
    Preset,
    TrainConfig,
    Variant,
    from_mapping,
    load_config,
    to_mapping,
)
from cascade_rt.errors import UsageError

Config = TypeVar("Config", CascadeConfig, TrainConfig)

MIN_SIDE_RULE = r"crop\.min_side must be a multiple of cascade\.crop\.grid, and lie between 64 and 2048"

WINDOW_RULE = r"cascade\.window_hu must be two numbers between -1000000 and 1000000, the lower one first"

positive = st.floats(1e-9, 1e3, allow_nan=False)


@st.composite
def crop_configs(draw: st.DrawFn) -> CropConfig:
    grid = 16 * draw(st.integers(1, 8))
    return CropConfig(
        threshold=draw(st.floats(0, 1, exclude_min=True, exclude_max=True)),
        margin=draw(st.integers(0, 200)),
        grid=grid,
        min_side=grid * draw(st.integers(-(-SHORTEST_SIDE // grid), 8)),
        corner_grid=draw(st.sampled_from((1, 2, 16, grid))),
        empty_policy=draw(st.sampled_from(("full", "skip"))),
    )


lengths_mm = st.floats(1e-3, 1e3)
ranges_mm = st.none() | st.tuples(lengths_mm, lengths_mm).map(lambda pair: (min(pair), max(pair)))


@st.composite
def cascade_configs(draw: st.DrawFn) -> CascadeConfig:
    low = draw(st.floats(-1000, 1000))
    return CascadeConfig(
        base_width=8 * draw(st.integers(1, 16)),
        window_hu=(low, low + draw(st.floats(1, 2000))),
        norm=draw(st.sampled_from(("batch", "instance", "group"))),
        bottleneck=draw(st.sampled_from(("paper", "stan"))),
        stage2_norm_epsilon=draw(positive),
        min_focusing_channels=4 * draw(st.integers(1, 16)),
        saliency_channels=draw(st.integers(1, 64)),
        stage2_features=draw(st.sampled_from(("encoder", "decoder"))),
        context_kernel=draw(st.sampled_from((1, 3))),
        pixel_mm=draw(ranges_mm),
        slice_mm=draw(ranges_mm),
        crop=draw(crop_configs()),
    )


boundary_settings = st.fixed_dictionaries(
    {
        "boundary_weight": st.floats(0, 10),
        "boundary_mode": st.sampled_from(("ste", "ste_matrix", "soft", "hard")),
        "boundary_from": st.sampled_from(("S", "I", "J")),
    }
)
boundary_classes = st.sampled_from([(3, True), (3, False), (2, True)]).map(
    lambda pair: {"boundary_classes": pair[0], "boundary_frame": pair[1]}
)
train_configs = st.builds(
    lambda boundary, classes, **values: TrainConfig(**boundary, **classes, **values),
    boundary_settings,
    boundary_classes,
    epochs=st.tuples(st.integers(1, 99), st.integers(0, 99), st.integers(0, 99)),
    optimizer=st.sampled_from(("sgd", "adam")),
    learning_rate=positive,
    momentum=st.floats(0, 0.99),
    weight_decay=positive,
    schedule=st.sampled_from(("constant", "poly")),
    batch_size=st.integers(1, 64),
    slices=st.sampled_from(("tumor", "organ", "all")),
    background_share=st.floats(0, 10),
    patch=st.just(0) | st.integers(2, 20).map(lambda count: 32 * count),
    organ_loss=st.sampled_from(("dice", "dice_bce")),
    stage2_weight=st.floats(0, 1),
    output_weights=st.tuples(positive, positive, positive, positive),
    legacy_unweighted_bce=st.booleans(),
    mixed_precision=st.booleans(),
    seed=st.integers(0, 2**31),
)


def toml(table: dict[str, Any], name: str) -> str:
    """A table as TOML, whose plain values are written as JSON writes them; None is left out."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict | None)]
    nested = [toml(value, f"{name}.{key}") for key, value in table.items() if isinstance(value, dict)]
    return "\n".join([f"[{name}]", *plain, *nested])


def load(tmp_path: Path, text: str, preset: Preset = "practical") -> tuple[CascadeConfig, TrainConfig]:
    path = tmp_path / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, preset)


def read_back(config: Config) -> Config:
    """Through JSON, as a bundle holds it."""
    return from_mapping(type(config), json.loads(json.dumps(to_mapping(config))), "config")


# Round trips


@given(cascade_configs())
def test_cascade_config_survives_json(config: CascadeConfig) -> None:
    assert read_back(config) == config


@given(train_configs)
def test_train_config_survives_json(config: TrainConfig) -> None:
    assert read_back(config) == config


@given(cascade_configs(), train_configs)
def test_configs_survive_a_toml_file(
    tmp_path_factory: pytest.TempPathFactory, cascade: CascadeConfig, train: TrainConfig
) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.toml"
    text = toml(to_mapping(cascade), "cascade") + "\n" + toml(to_mapping(train), "train")
    path.write_text(text, encoding="utf-8")
    assert load_config(path, "paper") == (cascade, train)


def test_mapping_holds_nested_tables_as_mappings() -> None:
    assert to_mapping(CascadeConfig())["crop"] == asdict(CropConfig())


@pytest.mark.parametrize("value", [TrainConfig, {"seed": 1}])
def test_only_a_config_has_a_mapping(value: object) -> None:
    with pytest.raises(TypeError, match="must be a dataclass instance"):
        to_mapping(value)


# Defaults, presets and the file


def test_empty_file_gives_the_defaults_and_the_preset(tmp_path: Path) -> None:
    assert load(tmp_path, "") == load_config(preset="practical")
    assert load(tmp_path, "")[0] == CascadeConfig(crop=CropConfig(corner_grid=32))


@pytest.mark.parametrize("preset", PRESETS)
def test_file_overrides_the_preset(tmp_path: Path, preset: Preset) -> None:
    _, train = load(tmp_path, "[train]\nlearning_rate = 0.25", preset)
    assert train.learning_rate == 0.25


@pytest.mark.parametrize("preset", PRESETS)
def test_what_the_file_leaves_out_keeps_the_number_of_the_preset(tmp_path: Path, preset: Preset) -> None:
    _, train = load(tmp_path, "[train]\nlearning_rate = 0.25", preset)
    assert asdict(train) == asdict(load_config(preset=preset)[1]) | {"learning_rate": 0.25}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "sgd"),
        ("momentum", 0.9),
        ("learning_rate", 1e-5),
        ("weight_decay", 1e-7),
        ("batch_size", 1),
        ("epochs", (2, 4, 50)),
        ("schedule", "constant"),
        ("slices", "tumor"),
        ("patch", 0),
        ("mixed_precision", False),
        ("stage2_weight", 0.9),
        ("output_weights", (0.5, 1, 2, 4)),
        ("legacy_unweighted_bce", False),
        ("boundary_weight", 0.4),
        ("boundary_mode", "ste"),
        ("boundary_from", "S"),
        ("boundary_classes", 3),
    ],
)
def test_paper_preset_has_the_numbers_of_the_paper(name: str, value: object) -> None:
    assert getattr(load_config(preset="paper")[1], name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", 0.5), ("margin", 20), ("min_side", 64), ("corner_grid", 1), ("empty_policy", "full")],
)
def test_crop_defaults_are_those_of_the_method(name: str, value: object) -> None:
    assert getattr(CropConfig(), name) == value


def test_crops_of_the_preset_practical_do_not_follow_every_pixel() -> None:
    assert load_config(preset="practical")[0].crop == CropConfig(corner_grid=32)
    assert load_config(preset="paper")[0].crop == CropConfig()


def test_the_output_weights_of_the_authors_code_can_be_asked_for() -> None:
    (_, paper), (_, code) = load_config(preset="paper"), load_config(preset="authors_code")
    assert code == replace(paper, output_weights=(1, 1, 2, 4))


def test_the_cross_entropy_of_the_authors_code_can_be_asked_for(tmp_path: Path) -> None:
    assert load(tmp_path, "[train]\nlegacy_unweighted_bce = true", "paper")[1].legacy_unweighted_bce


def test_a_file_goes_over_the_variant_and_the_variant_over_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text("[cascade]\nsaliency = true\n[cascade.crop]\nmargin = 5\n[train]\nseed = 7", encoding="utf-8")
    cascade, train = load_config(path, "practical", variant="m-p")
    assert (cascade.stage2, cascade.saliency, cascade.crop) == (
        "multiscale_unet",
        True,
        CropConfig(margin=5, corner_grid=32),
    )
    assert (train.joint, train.optimizer, train.seed) == (False, "adam", 7)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_variant_changes_the_method_and_no_number_of_the_training(preset: Preset, variant: Variant) -> None:
    expected, (_, found) = asdict(load_config(preset=preset)[1]), load_config(preset=preset, variant=variant)
    changed = {name for name, value in asdict(found).items() if value != expected[name]}
    assert changed <= {"joint", "transfer", "boundary_weight"}


@pytest.mark.parametrize("network", COMPARATORS)
def test_a_network_of_table_1_has_its_name_in_stage_2_and_no_stage_1(network: Comparator) -> None:
    cascade, train = load_config(network=network)
    assert (cascade.stage1, cascade.stage2, cascade.saliency, train.joint) == ("none", network, False, False)


# Keys, tables and files that do not exist


def test_unknown_key_is_refused_with_the_closest_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown key train\.learning_rte; did you mean 'learning_rate'\?"):
        load(tmp_path, "[train]\nlearning_rte = 1e-3")


def test_unknown_key_like_no_other_is_refused_with_all_keys(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown key cascade\.crop\.zzz; known keys: threshold, margin, grid"):
        load(tmp_path, "[cascade.crop]\nzzz = 1")


def test_unknown_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown table \[training\]; a config has the tables \[cascade\] and"):
        load(tmp_path, "[training]\nseed = 1")


@pytest.mark.parametrize(
    ("text", "table"),
    [("cascade = 5", "cascade"), ("train = 5", "train"), ("[[train]]", "train"), ("cascade.crop = 5", "cascade.crop")],
)
def test_value_in_the_place_of_a_table_is_refused(tmp_path: Path, text: str, table: str) -> None:
    with pytest.raises(UsageError, match=rf"experiment\.toml: {table} must be a table, got "):
        load(tmp_path, text)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml: cannot be read .*choose an existing TOML file"):
        load_config(tmp_path / "nowhere.toml")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path)


def test_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a TOML file"):
        load(tmp_path, "learning rate: 1e-3")


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not a TOML file"):
        load_config(tmp_path / "experiment.toml")


# Types


@pytest.mark.parametrize("text", ["train.learning_rate = 1", "train.output_weights = [1, 2, 3, 4]"])
def test_an_integer_is_accepted_for_a_float(tmp_path: Path, text: str) -> None:
    _, train = load(tmp_path, text)
    assert all(type(value) is float for value in (train.learning_rate, *train.output_weights))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.batch_size = true", r"train\.batch_size must be of type int, got True"),
        ("train.batch_size = 2.0", r"train\.batch_size must be of type int, got 2\.0"),
        ("train.batch_size = '2'", r"train\.batch_size must be of type int, got '2'"),
        ("train.learning_rate = true", r"train\.learning_rate must be of type float, got True"),
        ("train.learning_rate = '1e-3'", r"train\.learning_rate must be of type float, got '1e-3'"),
        ("train.mixed_precision = 1", r"train\.mixed_precision must be of type bool, got 1"),
        ("train.patch = 96.0", r"train\.patch must be of type int, got 96\.0"),
        ("train.epochs = [1, 2.0, 3]", r"train\.epochs must be of type int, got 2\.0"),
        ("train.epochs = [1, 2]", r"train\.epochs must be a list of 3 values, got \[1, 2\]"),
        ("train.epochs = 7", r"train\.epochs must be a list of 3 values, got 7"),
        ("train.optimizer = 'lion'", r"train\.optimizer must be one of sgd, adam, got 'lion'"),
        ("train.boundary_mode = 'mild'", r"train\.boundary_mode must be one of ste, ste_matrix, soft, hard, got"),
        ("train.boundary_from = 'T'", r"train\.boundary_from must be one of S, I, J, got 'T'"),
        ("train.boundary_classes = 4", r"train\.boundary_classes must be one of 2, 3, got 4"),
        ("cascade.window_hu = '-100, 240'", r"cascade\.window_hu must be a list of 2 values"),
        ("cascade.pixel_mm = 0.8", r"cascade\.pixel_mm must be a list of 2 values"),
        ("cascade.pixel_mm = [0.6, '1']", r"cascade\.pixel_mm must be of type float, got '1'"),
        ("cascade.context_kernel = 2", r"cascade\.context_kernel must be one of 1, 3, got 2"),
        ("cascade.context_kernel = true", r"cascade\.context_kernel must be one of 1, 3, got True"),
        ("cascade.context_kernel = 3.0", r"cascade\.context_kernel must be one of 1, 3, got 3\.0"),
    ],
)
def test_value_of_another_type_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tmp_path, text)


# Ranges


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cascade.base_width = 12", r"cascade\.base_width must be a multiple of 8, and at most 1048576, got 12"),
        ("cascade.base_width = 0", r"cascade\.base_width must be a multiple of 8, and at most 1048576, got 0"),
        ("cascade.pixel_mm = [1.0, 0.6]", r"cascade\.pixel_mm must be two numbers between 0\.001 and 1000 mm"),
        ("cascade.pixel_mm = [0.0, 0.6]", r"cascade\.pixel_mm must be two numbers between 0\.001 and 1000 mm"),
        ("cascade.slice_mm = [1.0, inf]", r"cascade\.slice_mm must be two numbers between 0\.001 and 1000 mm"),
        (
            "cascade.window_hu = [240, -100]",
            WINDOW_RULE,
        ),
        (
            "cascade.window_hu = [-inf, inf]",
            WINDOW_RULE,
        ),
        ("train.seed = -1", r"train\.seed must lie between 0 and 2\^63 - 1, got -1"),
        ("train.momentum = 1.0", r"train\.momentum must lie between 0 and 1, got 1\.0"),
        ("train.learning_rate = inf", r"train\.learning_rate must be positive, got inf"),
        ("train.weight_decay = -1.0", r"train\.weight_decay must not be negative, got -1\.0"),
        ("train.stage2_weight = nan", r"train\.stage2_weight must not be negative, got nan"),
        ("train.boundary_weight = -0.4", r"train\.boundary_weight must not be negative, got -0\.4"),
        (
            "train.boundary_classes = 2\ntrain.boundary_frame = false",
            r"train\.boundary_frame must be true when train\.boundary_classes is 2: .*, got False",
        ),
        ("train.output_weights = [1, 1, 1, -2]", r"train\.output_weights must not be negative"),
        (
            "cascade.window_hu = [0, nan]",
            WINDOW_RULE,
        ),
        ("cascade.stage2_norm_epsilon = 0.0", r"cascade\.stage2_norm_epsilon must be a positive number, got 0\.0"),
        ("cascade.stage2_norm_epsilon = inf", r"cascade\.stage2_norm_epsilon must be a positive number, got inf"),
        (
            "cascade.min_focusing_channels = 6",
            r"min_focusing_channels must be a multiple of 4, and at most 1048576, got 6",
        ),
        ("cascade.saliency_channels = 0", r"cascade\.saliency_channels must lie between 1 and 1048576, got 0"),
        ("cascade.crop.threshold = 0", r"crop\.threshold must lie between 0 and 1, got 0\.0"),
        ("cascade.crop.threshold = 1", r"crop\.threshold must lie between 0 and 1, got 1\.0"),
        ("cascade.crop.threshold = nan", r"crop\.threshold must lie between 0 and 1, got nan"),
        ("cascade.crop.margin = -1", r"crop\.margin must lie between 0 and 2048, got -1"),
        ("cascade.crop.grid = 24", r"crop\.grid must be a multiple of 16, and at most 2048, got 24"),
        ("cascade.crop.grid = 0", r"crop\.grid must be a multiple of 16, and at most 2048, got 0"),
        ("cascade.crop.min_side = 80", f"{MIN_SIDE_RULE}, got 80"),
        ("cascade.crop.corner_grid = 24", r"crop\.corner_grid must divide cascade\.crop\.grid, got 24"),
        ("cascade.crop.corner_grid = 0", r"crop\.corner_grid must divide cascade\.crop\.grid, got 0"),
        ("cascade.crop.min_side = 32", f"{MIN_SIDE_RULE}, got 32"),
        ("cascade.crop.min_side = 0", f"{MIN_SIDE_RULE}, got 0"),
        (f"cascade.crop.min_side = {1 << 70}", MIN_SIDE_RULE),
        (f"cascade.crop.margin = {1 << 70}", r"crop\.margin must lie between 0 and 2048"),
        (f"cascade.crop.grid = {1 << 70}", r"crop\.grid must be a multiple of 16, and at most 2048"),
        (f"cascade.base_width = {1 << 70}", r"base_width must be a multiple of 8, and at most 1048576"),
        (f"cascade.saliency_channels = {1 << 70}", r"saliency_channels must lie between 1 and 1048576"),
        ("cascade.pixel_mm = [1e-300, 1.0]", r"cascade\.pixel_mm must be two numbers between 0\.001 and 1000 mm"),
        ("cascade.window_hu = [-1e308, 1e308]", WINDOW_RULE),
        (f"train.seed = {1 << 70}", r"train\.seed must lie between 0 and"),
        ("train.epochs = [0, 0, 0]", r"train\.epochs must not be negative, and not all 0"),
        ("train.epochs = [-1, 2, 2]", r"train\.epochs must not be negative, and not all 0"),
        ("train.learning_rate = 0", r"train\.learning_rate must be positive, got 0\.0"),
        ("train.learning_rate = nan", r"train\.learning_rate must be positive, got nan"),
        ("train.batch_size = 0", r"train\.batch_size must be positive, got 0"),
        ("train.background_share = -0.5", r"train\.background_share must not be negative, got -0\.5"),
        ("train.patch = 32", r"train\.patch must be 0 or a multiple of 32 from 64 to 2048, got 32"),
        ("train.patch = 100", r"train\.patch must be 0 or a multiple of 32 from 64 to 2048, got 100"),
    ],
)
def test_value_out_of_range_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tmp_path, text)


def test_the_range_is_checked_even_if_no_file_is_read() -> None:
    with pytest.raises(UsageError, match=r"crop\.margin must lie between 0 and 2048"):
        CropConfig(margin=-1)


def test_config_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="margin"):
        CropConfig().margin = 3  # type: ignore[misc]
