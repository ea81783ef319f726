"""A folder of pictures: one of each patient, and a sheet of the worst."""

from pathlib import Path

from benchmarks.patients.cases import Mask, Patient
from benchmarks.patients.pictures import WORST_CASES, contact_sheet, draw_patient
from cascade_rt.common.metrics import dice
from cascade_rt.errors import OutputError
from cascade_rt.results.preview import save_picture


class Gallery:
    """Draws patients as they are measured; without a folder it draws nothing.

    Example:
        gallery = Gallery(Path("pictures"))
        gallery.add(patient, found)
        gallery.close()
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._drawn: dict[str, list[tuple[float, Path]]] = {}
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from error

    def add(self, patient: Patient, found: Mask) -> None:
        """Draw a patient with the mask that is scored, `[z, row, col]`."""
        if self._folder is None:
            return
        path = self._folder / f"{patient.case.name}.png"
        save_picture(draw_patient(patient, found), path, overwrite=True)
        self._drawn.setdefault(patient.case.set, []).append((dice(found, patient.truth), path))

    def close(self) -> None:
        """Draw the sheets of those with the lowest Dice, one for the slices and one for the whole scans."""
        from PIL import Image

        for case_set, drawn in self._drawn.items():
            worst = [path for _, path in sorted(drawn)[:WORST_CASES]]
            pages = [Image.open(path) for path in worst]
            assert self._folder is not None
            save_picture(contact_sheet(pages), self._folder / f"worst_{case_set}.png", overwrite=True)
