"""The shapes that engines are made for take all that the stages promise to take."""

from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.common.tensors import (
    CROPS_PER_BATCH,
    LONGEST_SIDE,
    SHORTEST_SIDE,
    SIDE_MULTIPLE,
    SLICES_PER_BATCH,
    STAGES,
)
from cascade_rt.config import CascadeConfig, CropConfig
from cascade_rt.engines.shape_profiles import shape_profiles
from cascade_rt.models.crop import full_box, grid_size


@st.composite
def configs(draw: st.DrawFn) -> CascadeConfig:
    grid = 16 * draw(st.integers(1, 12))
    crop = CropConfig(
        margin=draw(st.integers(0, 300)),
        grid=grid,
        min_side=grid * draw(st.integers(-(-SHORTEST_SIDE // grid), 4)),
        corner_grid=draw(st.sampled_from((1, 16, grid))),
    )
    alone = draw(st.booleans())
    return CascadeConfig(crop=crop, stage1="none" if alone else "multiscale_unet", saliency=not alone)


@given(configs(), st.sampled_from(STAGES))
def test_profiles_are_ordered_and_of_sides_that_the_networks_take(config: CascadeConfig, stage: str) -> None:
    for profile in shape_profiles(stage, config):  # type: ignore[arg-type]
        assert profile.takes(profile.usual)
        for shape in (profile.smallest, profile.usual, profile.largest):
            assert shape[1] == 1
            assert all(side % SIDE_MULTIPLE == 0 and SHORTEST_SIDE <= side <= LONGEST_SIDE for side in shape[2:])


@given(
    configs(),
    st.sampled_from(STAGES),
    *[st.integers(SHORTEST_SIDE // SIDE_MULTIPLE, LONGEST_SIDE // SIDE_MULTIPLE)] * 2,
)
def test_a_single_image_of_any_size_is_taken(config: CascadeConfig, stage: str, rows: int, cols: int) -> None:
    shape = (1, 1, rows * SIDE_MULTIPLE, cols * SIDE_MULTIPLE)
    assert shape_profiles(stage, config)[1].takes(shape)  # type: ignore[arg-type]


@given(configs())
def test_a_full_batch_of_whole_slices_of_512_is_taken_by_both_stages(config: CascadeConfig) -> None:
    whole = full_box((512, 512), config.crop).size
    assert shape_profiles("stage1", config)[0].takes((SLICES_PER_BATCH, 1, 512, 512))
    assert shape_profiles("stage2", config)[0].takes((CROPS_PER_BATCH, 1, *whole))


def test_crops_are_expected_on_the_grid_of_the_config() -> None:
    config = CascadeConfig(crop=CropConfig(margin=30, grid=48, min_side=96))
    assert shape_profiles("stage2", config)[0].usual[2:] == grid_size((112 + 60, 112 + 60), config.crop) == (192, 192)


def test_usual_crop_size_includes_what_the_corner_grid_adds() -> None:
    config = CascadeConfig(crop=CropConfig(margin=20, corner_grid=32))
    assert shape_profiles("stage2", config)[0].usual[2:] == (192, 192)


def test_a_cascade_without_stage_1_expects_whole_slices_in_stage_2() -> None:
    config = CascadeConfig(stage1="none", saliency=False)
    assert shape_profiles("stage2", config)[0].usual == (CROPS_PER_BATCH, 1, 512, 512)


def test_a_larger_batch_than_the_profile_has_is_not_taken() -> None:
    assert not shape_profiles("stage1", CascadeConfig())[0].takes((SLICES_PER_BATCH + 1, 1, 512, 512))
