"""cohort.json: the on-disk cohort format, a MONAI-style datalist that people bring data in."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FeatureStatus = Literal["present", "absent", "ignore"]


class CohortLesion(BaseModel):
    """One lesion. Paths are relative to the folder of cohort.json."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    lesion_id: str = Field(min_length=1)
    patient_id: str = Field(min_length=1)
    class_id: str = Field(alias="class")
    image: dict[str, str] = Field(
        description="Phase -> NIfTI path. A phase that was not acquired is left out, in voi too."
    )
    voi: dict[str, list[list[int]]] = Field(
        description="Phase -> [[x0,y0,z0],[x1,y1,z1]], voxel indices, half open."
    )
    features: dict[str, FeatureStatus] = Field(
        default_factory=dict, description="Unlisted means not assessed."
    )
    masks: dict[str, str] = Field(
        default_factory=dict, description="'lesion' or a feature id -> NIfTI path."
    )


class CohortFile(BaseModel):
    """The file itself. Splits are by patient, never by lesion."""

    model_config = ConfigDict(extra="forbid")

    name: str
    version: str
    licence: str
    synthetic: bool
    phases: list[str]
    classes: list[str]
    features: list[str]
    modality: Literal["MR", "CT"] = "MR"
    training: list[CohortLesion] = []
    validation: list[CohortLesion] = []
    test: list[CohortLesion] = []
    outside: list[CohortLesion] = Field(
        default_factory=list,
        description="Set aside as out of distribution: of a class that `classes` lacks, such as an "
        "abscess. Never trained on, never counted as a test lesion.",
    )
