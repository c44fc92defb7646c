"""The default vocabulary holds together, and a broken one is refused by field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.vocabulary import DEFAULT, liver_mri, read_vocabulary


def test_the_default_has_six_classes_three_phases_fourteen_features() -> None:
    v = liver_mri()
    assert (len(v.classes), len(v.phases), len(v.features)) == (6, 3, 14)
    assert v.phase_ids == ["arterial", "portal_venous", "delayed"]
    assert all(f.typical_of for f in v.features)
    typical = {c for f in v.features for c in f.typical_of}
    assert typical == set(v.class_ids)


def test_every_code_names_its_source() -> None:
    v = liver_mri()
    codes = [c for item in [*v.classes, *v.features] for c in item.codes]
    assert codes
    assert all(c.source and c.scheme and c.value for c in codes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["features"][0]["typical_of"].append("sarcoma"), "sarcoma"),
        (lambda d: d["classes"].append(d["classes"][0]), "stands twice"),
        (lambda d: d["phases"][0].pop("seconds"), "seconds"),
    ],
)
def test_a_broken_vocabulary_names_what_is_wrong(change, text: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = json.loads(DEFAULT.read_text("utf-8"))
    change(data)
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(data), "utf-8")
    with pytest.raises(ValidationError, match=text):
        read_vocabulary(path)
