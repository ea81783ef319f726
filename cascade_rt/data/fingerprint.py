"""A 12-character fingerprint of a set of cases, independent of the store that holds them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from cascade_rt.errors import InputError

_LENGTH = 12


def fingerprint(store: Path, names: Sequence[str]) -> str:
    """Hash the names, spacings and recorded array hashes of finished cases, in any order.

    Raises:
        InputError: A case is missing or unfinished, or its case.json lacks these entries.
    """
    whole = hashlib.sha256()
    for name in sorted(names):
        try:
            facts = json.loads((store / name / "case.json").read_text(encoding="utf-8"))
            held = [name, facts["spacing_mm"], {file: record["sha256"] for file, record in facts["arrays"].items()}]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{store / name}: its case.json cannot be read; prepare the case again") from error
        whole.update(json.dumps(held, sort_keys=True).encode())
    return whole.hexdigest()[:_LENGTH]
