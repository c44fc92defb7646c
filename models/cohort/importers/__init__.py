"""Importers: layouts of public and private sets, each one file, read into the one cohort format.

name -> (module, one line of help). A new layout is one file that follows base.Importer and
one line here; the command line makes its verb and options of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from models.errors import NotFound

if TYPE_CHECKING:
    from models.cohort.importers.base import Importer

IMPORTERS = {
    "lld-mmri": ("models.cohort.importers.lld_mmri", "LLD-MMRI: MR, six classes and abscesses."),
    "amplifai": ("models.cohort.importers.amplifai", "AMPLIFAI: CT, LI-RADS, feature masks."),
    "nifti": ("models.cohort.importers.nifti_boxes", "NIfTI files listed in a table."),
    "dicom": ("models.cohort.importers.dicom_folders", "DICOM studies with SEG or boxes."),
}


def load_importer(name: str) -> Importer:
    """The importer of this name, loaded now. Raises NotFound."""
    if name not in IMPORTERS:
        raise NotFound("no such importer", field=name, expected=", ".join(IMPORTERS))
    return cast("Importer", importlib.import_module(IMPORTERS[name][0]))
