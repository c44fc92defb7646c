"""The JSON form of an upload. Multipart NIfTI is the compact one; this one needs no file format."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PhaseBody(BaseModel):
    """One phase: either a NIfTI file, or voxels and where they lie."""

    model_config = ConfigDict(extra="forbid")

    nifti: str | None = Field(None, description="A .nii or .nii.gz file in base64.")
    voxels: list[Any] | None = Field(None, description="Nested lists, [X][Y][Z].")
    spacing: tuple[float, float, float] | None = Field(
        None, description="Voxel edges in mm; the axes are taken as right, anterior, superior."
    )
    affine: list[list[float]] | None = Field(
        None, description="4x4, voxel index to mm, RAS+. In place of `spacing`."
    )

    @model_validator(mode="after")
    def _one_form(self) -> PhaseBody:
        if (self.nifti is None) == (self.voxels is None):
            raise ValueError("give either 'nifti' or 'voxels'")
        if self.voxels is not None and (self.spacing is None) == (self.affine is None):
            raise ValueError("'voxels' need either 'spacing' or 'affine'")
        if self.nifti is not None and (self.spacing or self.affine):
            raise ValueError("a NIfTI file brings its own affine")
        return self


class StudyBody(BaseModel):
    """A study as JSON. Members beside these two are options of the route."""

    model_config = ConfigDict(extra="allow")

    phases: dict[str, PhaseBody] = Field(description="Phase id -> volume.")
    box: Any = Field(
        description="[[x0,y0,z0],[x1,y1,z1]], voxel indices of the first phase, half open; "
        "or one such box for each phase id."
    )
