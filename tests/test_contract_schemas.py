"""The JSON schemas in proto/ are those of the messages, and they say no where they should."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from wire import schemas
from wire.explanation import Explanation

NAMES = [
    "api.schema.json",
    "bundle.schema.json",
    "cohort.schema.json",
    "explanation.schema.json",
    "variant.schema.json",
]


def test_the_files_are_up_to_date() -> None:
    assert sorted(schemas.schemas()) == NAMES
    assert schemas.stale() == [], "run python -m wire.schemas"
    assert schemas.main(["--check"]) == 0


def test_drift_is_found_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schemas.main(["--check", "--folder", str(tmp_path)]) == 1
    assert schemas.main(["--folder", str(tmp_path)]) == 0
    assert schemas.main(["--check", "--folder", str(tmp_path)]) == 0
    file = tmp_path / "cohort.schema.json"
    file.write_bytes(file.read_bytes().replace(b"lesion_id", b"lesion_no"))
    capsys.readouterr()
    assert schemas.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "cohort.schema.json" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_valid_schema(name: str) -> None:
    schema = json.loads((schemas.FOLDER / name).read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_cohort_schema_judges_a_cohort() -> None:
    schema = json.loads((schemas.FOLDER / "cohort.schema.json").read_bytes())
    lesion = {
        "lesion_id": "l1",
        "patient_id": "p1",
        "class": "hcc",
        "image": {"arterial": "a.nii.gz"},
        "voi": {"arterial": [[0, 0, 0], [4, 4, 4]]},
        "features": {"washout": "present"},
    }
    cohort = {
        "name": "c", "version": "1", "licence": "CC0", "synthetic": True, "phases": ["arterial"],
        "classes": ["hcc"], "features": ["washout"], "training": [lesion],
    }  # fmt: skip
    jsonschema.validate(cohort, schema)
    for wrong in ({"class_id": "hcc"}, {"features": {"washout": "maybe"}}, {"lesion_id": ""}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**cohort, "training": [{**lesion, **wrong}]}, schema)


def test_the_explanation_schema_needs_every_required_field() -> None:
    schema = json.loads((schemas.FOLDER / "explanation.schema.json").read_bytes())
    required = {n for n, f in Explanation.model_fields.items() if f.is_required()}
    assert set(schema["required"]) == required
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schema)
