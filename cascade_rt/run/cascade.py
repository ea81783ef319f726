"""The cascade: both stages of a bundle, run on scans."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from cascade_rt.bundles.bundle import Bundle, find_bundle, read_bundle
from cascade_rt.common.arguments import as_path, check_argument, check_function
from cascade_rt.common.pixel_runs import Peaks
from cascade_rt.common.tensors import LONGEST_SIDE, STAGES
from cascade_rt.common.timing import Stopwatch
from cascade_rt.config import CascadeConfig
from cascade_rt.engines import ANY_ENGINES, BackendChoice, EngineRequest, Engines, PrecisionChoice, open_engines
from cascade_rt.engines.fallbacks import attempts
from cascade_rt.errors import BundleError, EngineOutOfMemoryError, InputError, InputWarning, UsageError
from cascade_rt.models.crop import full_box
from cascade_rt.results.islands import IslandRecord, keep_islands
from cascade_rt.results.measurements import Measurements, measure
from cascade_rt.results.provenance import provenance
from cascade_rt.results.segmentation import Segmentation, judge
from cascade_rt.run.scan_run import NO_MAPS, KeptMaps, ScanRun
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.pixel_grid import PixelGrid, check_pixels, resampled_warning, working_grid
from cascade_rt.scans.search import WHOLE_SCAN, SearchOptions, SearchRecord, check_search

if TYPE_CHECKING:
    # Engines can be compared on arrays without nibabel installed.
    from cascade_rt.scans.inputs import Scan
    from cascade_rt.scans.source import ScanSource
    from cascade_rt.scans.volume import Volume


KeepProbabilities = bool | Literal["uint8"]
"""Whether probability maps are kept, and how: True as float32, "uint8" in units of 1/255."""


class Cascade:
    """Both stages of a bundle, opened once and run on any number of scans.

    Threads may share a cascade; their scans are segmented one after the other. Processes may not: running a cascade in
    a process that did not open it raises UsageError (`E_OTHER_PROCESS`).

    Example:
        with open_cascade() as cascade:
            segmentation = cascade.run(read_volume("scan.nii.gz"))
        segmentation.save("scan_seg.nii.gz")
    """

    def __init__(self, bundle: Bundle, engines: Engines, fallbacks: EngineRequest | None = None) -> None:
        """Take over open engines, which are closed together with the cascade.

        Args:
            bundle: The bundle that the engines run.
            engines: Both stages.
            fallbacks: What was asked for when the engines were opened, from which follows what is tried when memory
                runs out; None to try nothing else.
        """
        self.bundle = bundle
        self.engines = engines
        self._fallbacks = fallbacks
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free both engines, after waiting for a scan in another thread. The cascade cannot be run afterwards."""
        self._is_closed = True
        self.engines.close()

    def run(
        self,
        scan: "ScanSource",
        *,
        keep_probabilities: KeepProbabilities = False,
        on_open: Callable[["ScanSource"], None] = lambda _: None,
        on_slices: Callable[[int], None] = lambda _: None,
        search: SearchOptions = WHOLE_SCAN,
    ) -> Segmentation:
        """Segment a scan, even while it is being read.

        If memory runs out, a cascade of `open_cascade` tries again with smaller batches, then on the next backend if it
        was opened with `auto`. Each scan is computed entirely on one engine.

        It returns once the scan was read to its end and found intact. `load` in the timings is the wait for slices.

        Args:
            scan: A `Volume`, or a scan that is being read, which the caller must close.
            keep_probabilities: Also return the maps of pancreas and tumor: True as float32, "uint8" in units of 1/255.
            on_open: Called with the scan once its header has been read.
            on_slices: Called with the number of slices just finished.
            search: Where stage 1 looks; anything but the whole scan may change the mask.

        Raises:
            EngineOutOfMemoryError: There is not enough memory for a single image.
            InputError: Reading fails, the slices are larger than the networks accept, or cannot be resampled for them.
            EngineError: An engine returned an invalid value, such as NaN.
            UsageError: An argument has the wrong type, or the cascade is closed or was opened in another process.
        """
        _check_source(scan)
        kept = _kept_maps(keep_probabilities, self._config)
        _check_arguments(on_open, on_slices, search)
        with self._turn(), closing(attempts(self.bundle, self.engines, self._fallbacks)) as engines_to_try:
            stopwatch = Stopwatch()
            with stopwatch.step("load"):
                voxels = scan.voxels
            on_open(scan)
            pixels, on_new_slices = check_grid(scan, self._config), _counted_once(on_slices)
            for engines in engines_to_try:
                run = ScanRun(engines, self._config, voxels.shape, pixels.pixel_mm, kept, stopwatch)
                try:
                    run.segment(
                        voxels,
                        wait_for=scan.wait_for,
                        head_first=scan.head_first,
                        on_slices=on_new_slices(),
                        search=search,
                    )
                except EngineOutOfMemoryError as error:
                    # The traceback refers to the mask and the buffers, which the next attempt needs the room of.
                    shortage = error.with_traceback(None)
                    del run
                    continue
                with stopwatch.step("load"):
                    volume = scan.finish()
                return self._conclude(run, volume, engines)
            try:
                raise shortage
            finally:
                del shortage

    def segment(
        self,
        scan: "Scan",
        *,
        reading: ScanOptions = DEFAULT_SCAN_OPTIONS,
        search: SearchOptions = WHOLE_SCAN,
        keep_probabilities: KeepProbabilities = False,
        on_slices: Callable[[int], None] = lambda _: None,
    ) -> Segmentation:
        """Segment a scan in any form: a path, `(array, affine)`, an image of nibabel or SimpleITK, or a `Volume`.

        See `cascade_rt.segment`, which also opens the cascade, for the arguments and the errors.
        """
        from cascade_rt.scans.inputs import scan_source

        with scan_source(scan, reading) as source:
            check_search(search, scattered=reading.scattered)
            return self.run(source, keep_probabilities=keep_probabilities, on_slices=on_slices, search=search)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self.engines.turns.take():
            # Checked only now, because the cascade may be closed while another thread has its turn.
            if self._is_closed:
                raise UsageError("the cascade is closed; open the bundle again")
            yield

    def _conclude(self, run: ScanRun, volume: "Volume", engines: Engines) -> Segmentation:
        config, whole = self._config, not volume.scattered
        with run.stopwatch.step("measure"):
            islands = IslandRecord()
            if whole:
                islands = keep_islands(run.mask, config, volume.voxel_volume_ml)
            found = measure(
                run.mask,
                volume.affine,
                volume.voxel_volume_ml,
                organ_sought=config.finds_organ,
                peaks=Peaks.joined(run.tumor_peaks),
                across_slices=whole,
            )
        # If both stages look for the pancreas, the mask comes from stage 2.
        probs = (run.organ_prob, run.tumor_prob) if config.target == "tumor" else (run.tumor_prob, None)
        return Segmentation(
            volume=volume,
            mask=run.mask,
            status=judge(run.mask, found, config, across_slices=whole),
            measurements=found,
            boxes=run.boxes,
            slices_without_organ=run.slices_without_organ,
            search=run.search,
            tumor_sought=config.target == "tumor",
            islands=islands,
            working_grid=run.working_grid,
            warnings=(
                *volume.warnings,
                *_resampling(volume, run.working_grid, self._config),
                *_search_warnings(run.search, len(run.mask)),
                *_island_warnings(islands, found),
                *engines.doubts,
            ),
            timings=run.stopwatch.seconds,
            wall_s=run.stopwatch.elapsed,
            provenance=provenance(self.bundle, engines),
            organ_prob=probs[0],
            tumor_prob=probs[1],
        )

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else repr(self.engines)
        return f"<Cascade {self.bundle.manifest.name!r}: {state}>"

    @property
    def _config(self) -> CascadeConfig:
        return self.bundle.manifest.config

    @property
    def provenance(self) -> dict[str, Any]:
        """Bundle, engine and versions, as in reports."""
        return provenance(self.bundle, self.engines)


def open_cascade(
    bundle: str | os.PathLike[str] | None = None,
    backend: BackendChoice = "auto",
    precision: PrecisionChoice = "auto",
    *,
    device: int = 0,
    engines: EngineRequest = ANY_ENGINES,
    public_key: str | os.PathLike[str] | None = None,
    sha256: str | None = None,
    falls_back: bool = True,
) -> Cascade:
    """Open a bundle, ready to segment scans.

    Args:
        bundle: Folder of the bundle, or the name of an embedded one, `patients`, `patients-tumor` or
            `phantom` (see `cascade_rt.bundles.bundle.find_bundle`); None for the default embedded bundle.
        backend: The library that runs the networks; `auto` selects the best one that runs here.
        precision: The numeric precision; `auto` selects the fastest on the backend.
        device: Number of the GPU among those that this process sees. Backends that run on the CPU ignore it.
        engines: Backend, precision and device in one, with a source of TensorRT engines, in place of these arguments.
        public_key: A PEM file. A bundle not signed with the matching private key is refused.
        sha256: The hash that the bundle must have, in hexadecimal; None accepts any.
        falls_back: Whether a scan that runs out of memory is tried again in smaller batches or on another backend, for
            which the backend must be `auto`. Measurements of one engine must not.

    Raises:
        BundleError: The bundle is refused, has another hash, or has no graphs of this precision.
        BackendUnavailableError: The backend cannot run on this machine.
        EngineError: An engine does not compute what was exported.
        UsageError: The backend, precision or GPU does not exist, the backend does not support this precision, an
            argument has the wrong type, or backend, precision or device are given twice.
    """
    request = _engine_request(backend, precision, device, engines)
    if bundle is not None:
        as_path("bundle", bundle)
    check_argument("sha256", sha256, (str, NoneType), "the hash of the bundle in hexadecimal, or None")
    check_argument("falls_back", falls_back, bool, "True or False")
    opened = read_bundle(find_bundle(bundle), public_key)
    if sha256 not in {None, opened.sha256}:
        raise BundleError(f"{opened.path}: does not have the hash {sha256}; was it replaced? start again")
    both = open_engines(opened, request.backend, request.precision, request.plans, request.device)
    return Cascade(opened, both, request if falls_back else None)


def _engine_request(
    backend: BackendChoice, precision: PrecisionChoice, device: int, engines: EngineRequest
) -> EngineRequest:
    """Return which engines to open, from either of the two ways to say so."""
    check_argument("engines", engines, EngineRequest, "EngineRequest, such as EngineRequest('onnxruntime', 'fp32')")
    given = EngineRequest(backend, precision, device=device)
    if given == ANY_ENGINES:
        return engines
    if engines != ANY_ENGINES:
        raise UsageError(
            "engines: holds backend, precision and device already; leave out `backend`, `precision` and `device`"
        )
    return given


def _counted_once(on_slices: Callable[[int], None]) -> Callable[[], Callable[[int], None]]:
    """Return what begins an attempt: a callback that reports only slices beyond the most finished by any before."""
    most = 0

    def begin() -> Callable[[int], None]:
        finished = 0

        def report(count: int) -> None:
            nonlocal finished, most
            finished += count
            if finished > most:
                on_slices(finished - most)
                most = finished

        return report

    return begin


def _check_source(scan: object) -> None:
    if not all(hasattr(scan, name) for name in ("voxels", "wait_for", "finish")):
        remedy = "read a file with read_volume(path), or wrap an array with Volume.from_array(array, affine)"
        raise UsageError(f"scan: must be a Volume, not {type(scan).__name__}; {remedy}; `segment` takes either")


def _check_arguments(on_open: object, on_slices: object, search: object) -> None:
    check_function("on_open", on_open, "a function of the scan")
    check_function("on_slices", on_slices, "a function of a number of slices")
    check_argument("search", search, SearchOptions, "SearchOptions, such as SearchOptions(first_every=4)")


def _kept_maps(keep: object, config: CascadeConfig) -> KeptMaps:
    """Return the probability maps to keep. If both stages look for the pancreas, the map of the first is of no use."""
    if not isinstance(keep, bool) and not (isinstance(keep, str) and keep == "uint8"):
        raise UsageError(f"keep_probabilities: unknown value {keep!r}; pass True, False or 'uint8'")
    if not keep:
        return NO_MAPS
    stages = STAGES if config.target == "tumor" else ("stage2",)
    return dict.fromkeys(stages, np.uint8 if keep == "uint8" else np.float32)


def check_grid(scan: "ScanSource", config: CascadeConfig) -> PixelGrid:
    """Return the pixel grid of a scan's slices, or refuse the scan if the networks cannot process it.

    Raises:
        InputError: The slices, or the crop box of a whole slice, are larger than the networks accept. Also raised by
            `check_pixels`.
    """
    grid = scan.canonical_grid
    _, rows, cols = grid.shape
    own = PixelGrid((rows, cols), grid.spacing_mm[1:])
    check_pixels(scan.name, grid.affine, own, config.pixel_mm, config.target)
    working = working_grid(own, config.pixel_mm)
    if max(full_box((working or own).shape, config.crop).size) <= LONGEST_SIDE:
        return own
    resampled = "" if working is None else f", resampled to {working.shape[0]} x {working.shape[1]},"
    raise InputError(
        f"{scan.name}: slices of {rows} x {cols} pixels{resampled} are larger than {LONGEST_SIDE} x {LONGEST_SIDE}; "
        "is this an axial CT? resample it"
    )


def _resampling(volume: "Volume", working: PixelGrid | None, config: CascadeConfig) -> list[InputWarning]:
    """Return the warning about slices that were resampled to pixels the networks know, if any."""
    if working is None or config.pixel_mm is None:
        return []
    return [resampled_warning(volume.spacing_mm[1:], working, config.pixel_mm)]


def _search_warnings(search: SearchRecord, slices: int) -> list[InputWarning]:
    """Return warnings about what a search of less than the whole scan may have missed."""
    may_differ = "the mask may differ from that of a full search"
    warnings = []
    if search.slices_left_out:
        left_out = f"{search.slices_left_out} of {slices} slices were skipped in the search for the pancreas"
        warnings.append(InputWarning("W_SLICES_LEFT_OUT", f"{left_out}, as requested; {may_differ}"))
    if search.body_box is not None:
        confined = "the search for the pancreas was limited to a box around the body"
        warnings.append(InputWarning("W_BODY_BOX", f"{confined}, as requested; {may_differ}"))
    return warnings


def _island_warnings(islands: IslandRecord, found: Measurements) -> list[InputWarning]:
    """Return warnings about islands that were all dropped, and about lesions apart from the pancreas."""
    warnings = []
    if islands.nothing_left:
        dropped = f"everything found ({islands.ml_dropped:.2f} ml) was dropped"
        too_small = f"all pieces are smaller than {islands.least_ml:g} ml"
        warnings.append(InputWarning("W_NOTHING_KEPT", f"{dropped}: {too_small}"))
    # One warning for all of them: a mask full of speckle has thousands.
    apart = [lesion for lesion in found.lesions if lesion.touches_pancreas is False]
    if apart:
        first = apart[0]
        place = f"{first.volume_ml:.2f} ml in slices {first.first_slice} to {first.last_slice}"
        told = f"the lesion of {place} does" if len(apart) == 1 else f"{len(apart)} lesions do"
        largest = "" if len(apart) == 1 else f", the largest of {place}"
        warnings.append(InputWarning("W_LESION_APART", f"{told} not touch the segmented pancreas{largest}"))
    return warnings
