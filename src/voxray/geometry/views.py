"""Where source and detector stand for each X-ray."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from voxray.errors import GeometryError
from voxray.geometry._frozen import FloatArray, frozen_array
from voxray.geometry.presets import Setup, setup_named

if TYPE_CHECKING:
    from pydicom import Dataset

    from voxray.geometry.placing import ViewOptions

# Parallel beams have their source this far away: 250 mm off the axis, rays diverge by 0.01 mm over 500 mm.
FAR_AWAY_MM = 1e7

ORIGIN = (0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class ViewGeometry:
    """Any number of X-ray views, each with its own pose and detector shape, in patient LPS millimetres.

    The centre of pixel (row, column) of view n stands at

        centre_mm[n] + (column - (columns - 1) / 2) * u_mm[n] + (row - (rows - 1) / 2) * v_mm[n].

    Args:
        source_mm: (views, 3), the focal spots.
        centre_mm: (views, 3), the middles of the detectors.
        u_mm: (views, 3), the step from one column to the next.
        v_mm: (views, 3), the step from one row to the next.
        shapes: (rows, columns) of each detector.
        names: one a view, without repetition; "view0", "view1", ... where none are given.
        isocentre_mm: the point that volumes are centred on; where it is not given, the point nearest to the
            central rays (for a single view: the point on its central ray at 1550 / 1800 of the way to the
            detector, as in the preset `chest`).

    Raises:
        GeometryError: if shapes do not fit, a vector is not finite, u and v are parallel, or a source lies in
            the plane of its detector.
    """

    source_mm: FloatArray
    centre_mm: FloatArray
    u_mm: FloatArray
    v_mm: FloatArray
    shapes: tuple[tuple[int, int], ...]
    names: tuple[str, ...] = ()
    isocentre_mm: FloatArray | None = None

    def __post_init__(self) -> None:
        n = len(self.shapes)
        if n == 0:
            raise GeometryError("A view geometry needs at least one view.")
        for name in ("source_mm", "centre_mm", "u_mm", "v_mm"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), (n, 3), name))
        try:
            shapes = tuple((index(rows), index(columns)) for rows, columns in self.shapes)
        except (TypeError, ValueError) as error:
            raise GeometryError(f"A detector's shape is two whole numbers, not {self.shapes}.") from error
        if min(min(shape) for shape in shapes) < 1:
            raise GeometryError(f"Detectors need at least one row and one column, not {shapes}.")
        names = tuple(self.names) or tuple(f"view{i}" for i in range(n))
        if len(names) != n or len(set(names)) != n:
            raise GeometryError(f"{n} views need {n} different names, not {list(names)}.")
        object.__setattr__(self, "shapes", shapes)
        object.__setattr__(self, "names", names)
        if self.isocentre_mm is not None:
            object.__setattr__(self, "isocentre_mm", frozen_array(self.isocentre_mm, (3,), "The isocentre"))
        for i, name in enumerate(names):
            normal = np.cross(self.u_mm[i], self.v_mm[i])
            if np.linalg.norm(normal) <= 1e-6 * np.linalg.norm(self.u_mm[i]) * np.linalg.norm(self.v_mm[i]):
                raise GeometryError(f"View {name!r}: u_mm and v_mm are parallel or zero.")
            distance = abs(np.dot(self.centre_mm[i] - self.source_mm[i], normal)) / np.linalg.norm(normal)
            if not distance > 1e-3:
                raise GeometryError(f"View {name!r}: the source lies in the plane of the detector.")

    # ---------------------------------------------------------------- constructors

    @classmethod
    def from_angles(
        cls,
        primary_deg: Sequence[float],
        secondary_deg: Sequence[float] | None = None,
        *,
        setup: str | Setup = "chest",
        isocentre_mm: Sequence[float] | FloatArray = ORIGIN,
        names: Sequence[str] = (),
    ) -> "ViewGeometry":
        """Stand source and detector on a C-arm about the isocentre.

        Angles are DICOM's positioner angles (PS3.3 C.8.7.5.1.2): at primary angle 0 the detector is in front of
        the patient and the source behind (PA); at +90 the detector is at the patient's left (left lateral); a
        positive secondary angle moves the detector towards the head. Rows run towards the feet; the image is
        seen from the detector (PA: the patient's left at the right of the image).
        """
        setup = setup_named(setup)
        secondary_deg = [0.0] * len(primary_deg) if secondary_deg is None else secondary_deg
        if len(secondary_deg) != len(primary_deg):
            raise GeometryError(f"{len(primary_deg)} primary angles, but {len(secondary_deg)} secondary.")
        theta, phi = np.deg2rad(primary_deg), np.deg2rad(secondary_deg)
        zero = np.zeros_like(theta)
        to_detector = np.stack([np.sin(theta) * np.cos(phi), -np.cos(theta) * np.cos(phi), np.sin(phi)], -1)
        u = np.stack([np.cos(theta), np.sin(theta), zero], -1)
        v = np.cross(u, to_detector)
        iso = frozen_array(isocentre_mm, (3,), "The isocentre")
        behind = setup.source_detector_mm - setup.source_isocentre_mm
        return cls(
            source_mm=iso - setup.source_isocentre_mm * to_detector,
            centre_mm=iso + behind * to_detector,
            u_mm=setup.pixel_mm * u,
            v_mm=setup.pixel_mm * v,
            shapes=(setup.shape,) * len(theta),
            names=tuple(names),
            isocentre_mm=iso,
        )

    @classmethod
    def from_names(
        cls,
        names: Sequence[str],
        *,
        setup: str | Setup = "chest",
        isocentre_mm: Sequence[float] | FloatArray = ORIGIN,
        lateral_anterior: Literal["right", "left"] = "right",
    ) -> "ViewGeometry":
        """Return one view for each name: `pa`, `ap`, `lateral` (= `left_lateral`), `right_lateral`, or an angle.

        An angle is written as degrees of `from_angles`, for instance `45` or `-30`. `lateral_anterior` says at
        which side of a lateral image the front of the patient is shown; it mirrors the image, not the patient.

        Raises:
            GeometryError: if a name is none of these.
        """
        if lateral_anterior not in ("right", "left"):
            raise GeometryError(f"lateral_anterior must be 'right' or 'left', not {lateral_anterior!r}.")
        angles = {"pa": 0.0, "ap": 180.0, "lateral": 90.0, "left_lateral": 90.0, "right_lateral": -90.0}
        try:
            primary = [angles[name] if name in angles else float(name) for name in names]
            if not np.isfinite(primary).all():
                raise ValueError("an angle that is not a finite number")
        except ValueError:
            raise GeometryError(
                f"Unknown view in {list(names)}; a view is one of {', '.join(angles)}, or an angle in degrees."
            ) from None
        views = cls.from_angles(primary, setup=setup, isocentre_mm=isocentre_mm, names=names)
        u = np.array(views.u_mm)
        for i, name in enumerate(names):
            if name == "ap":
                u[i] = abs(u[i])  # AP is shown like PA: the patient's left at the right of the image
            elif name in angles and name != "pa":
                step = np.linalg.norm(u[i])
                u[i] = (0.0, -step if lateral_anterior == "right" else step, 0.0)
        return cls(views.source_mm, views.centre_mm, u, views.v_mm, views.shapes, views.names, views.isocentre_mm)

    @classmethod
    def biplanar(
        cls,
        frontal: Literal["pa", "ap"] = "pa",
        lateral: Literal["left", "right"] = "left",
        *,
        setup: str | Setup = "chest",
        isocentre_mm: Sequence[float] | FloatArray = ORIGIN,
        lateral_anterior: Literal["right", "left"] = "right",
    ) -> "ViewGeometry":
        """Return the frontal and the lateral view of a chest examination, named `frontal` and "lateral".

        Args:
            frontal: `pa` (source behind the patient) or `ap` (source in front).
            lateral: the side of the patient that stands at the detector.
            setup: a preset's name, or a `Setup`.
            isocentre_mm: LPS.
            lateral_anterior: the side of the lateral image at which the front of the patient is shown.
        """
        if frontal not in ("pa", "ap") or lateral not in ("left", "right"):
            raise GeometryError(f"frontal is 'pa' or 'ap', lateral 'left' or 'right'; not {frontal}, {lateral}.")
        views = cls.from_names(
            (frontal, f"{lateral}_lateral"),
            setup=setup, isocentre_mm=isocentre_mm, lateral_anterior=lateral_anterior,
        )  # fmt: skip
        return views.renamed((frontal, "lateral"))

    @classmethod
    def circular(
        cls,
        views: int,
        range_deg: float = 180.0,
        start_deg: float = 0.0,
        *,
        setup: str | Setup = "chest",
        isocentre_mm: Sequence[float] | FloatArray = ORIGIN,
    ) -> "ViewGeometry":
        """Spread `views` evenly over [start, start + range), beginning at `start_deg` (0: PA, 90: left lateral)."""
        if views < 1:
            raise GeometryError(f"At least one view is needed, not {views}.")
        angles = start_deg + range_deg * np.arange(views) / views
        return cls.from_angles(list(angles), setup=setup, isocentre_mm=isocentre_mm)

    @classmethod
    def parallel(
        cls,
        primary_deg: Sequence[float],
        secondary_deg: Sequence[float] | None = None,
        *,
        pixel_mm: float = 2.5,
        shape: tuple[int, int] = (128, 128),
        isocentre_mm: Sequence[float] | FloatArray = ORIGIN,
    ) -> "ViewGeometry":
        """Return views with parallel beams: a source `FAR_AWAY_MM` away, detectors 500 mm behind the isocentre."""
        setup = Setup(FAR_AWAY_MM + 500.0, FAR_AWAY_MM, pixel_mm, shape)
        return cls.from_angles(primary_deg, secondary_deg, setup=setup, isocentre_mm=isocentre_mm)

    # ---------------------------------------------------------------- files

    @classmethod
    def from_dicom(
        cls,
        datasets: "Sequence[Dataset]",
        *,
        views: Sequence[str] | None = None,
        options: "ViewOptions | None" = None,
    ) -> "ViewGeometry":
        """Read the views from the tags of DICOM X-rays; see `voxray.geometry.dicom.views_from_dicom`."""
        from voxray.geometry.dicom import views_from_dicom  # pydicom is loaded only where it is needed

        return views_from_dicom(datasets, views=views, options=options)

    @classmethod
    def from_json(cls, text: str | bytes) -> "ViewGeometry":
        """Read the format of `to_json`: isocentre_mm, and by view name source_mm, centre_mm, u_mm, v_mm and shape.

        A report of a reconstruction, which holds the geometry under the key "geometry", is read, too.

        Raises:
            GeometryError: if it is not JSON, or a key is missing.
        """
        try:
            data = json.loads(text)
            data = data.get("geometry", data)
            views = data["views"]
            if not isinstance(views, dict):
                raise TypeError("views must be an object with one entry a view")
            columns: dict[str, Any] = {key: [view[key] for view in views.values()] for key in _KEYS}
            shapes: tuple[Any, ...] = tuple(tuple(view["shape"]) for view in views.values())
        except KeyError as error:
            raise GeometryError(f"The geometry lacks the key {error}.") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise GeometryError(f"This is no geometry file: {error}.") from error
        return cls(**columns, shapes=shapes, names=tuple(views), isocentre_mm=data.get("isocentre_mm"))

    def to_json(self) -> str:
        """Write all views as JSON; `from_json` reads it back exactly."""
        views = {
            name: {key: getattr(self, key)[i].tolist() for key in _KEYS} | {"shape": list(self.shapes[i])}
            for i, name in enumerate(self.names)
        }
        data: dict[str, Any] = {"isocentre_mm": self.isocentre().tolist(), "views": views}
        return json.dumps(data, indent=1)

    # ---------------------------------------------------------------- derived

    def __len__(self) -> int:
        return len(self.shapes)

    def isocentre(self) -> FloatArray:
        """Return `isocentre_mm` where it is given, else the point nearest to all central rays (LPS, mm)."""
        if self.isocentre_mm is not None:
            return self.isocentre_mm
        axis = self.centre_mm - self.source_mm
        fallback = self.source_mm + axis * (1550.0 / 1800.0)
        axis = axis / np.linalg.norm(axis, axis=1, keepdims=True)
        # Least squares over the distances to the rays; the tiny second term decides where rays are parallel.
        across = np.eye(3) - axis[:, :, None] * axis[:, None, :]
        left = across.sum(0) + 1e-9 * np.eye(3) * len(self)
        right = (across @ self.source_mm[:, :, None]).sum(0)[:, 0] + 1e-9 * fallback.sum(0)
        return np.asarray(np.linalg.solve(left, right))

    def pixels_mm(self, view: int) -> FloatArray:
        """Return the LPS position of every pixel of one view, (rows, columns, 3)."""
        rows, columns = self.shapes[view]
        row = (np.arange(rows) - (rows - 1) / 2)[:, None, None]
        column = (np.arange(columns) - (columns - 1) / 2)[None, :, None]
        return np.asarray(self.centre_mm[view] + column * self.u_mm[view] + row * self.v_mm[view])

    def project_mm(self, xyz_mm: Sequence[float] | FloatArray, view: int) -> FloatArray:
        """Map points (..., 3), LPS mm, to the (row, column) at which one view shows them, (..., 2)."""
        points = np.asarray(xyz_mm, dtype=np.float64)
        source, centre = self.source_mm[view], self.centre_mm[view]
        normal = np.cross(self.u_mm[view], self.v_mm[view])
        ray = points - source
        hit = source + ray * (np.dot(centre - source, normal) / (ray @ normal))[..., None] - centre
        plane = np.stack([self.v_mm[view], self.u_mm[view]], axis=1)
        middle = (np.array(self.shapes[view]) - 1) / 2
        return np.asarray(hit @ np.linalg.pinv(plane).T + middle)

    def subset(self, views: Iterable[int]) -> "ViewGeometry":
        """Return the views of these numbers, in this order, about the same isocentre."""
        order = list(views)
        return ViewGeometry(
            self.source_mm[order], self.centre_mm[order], self.u_mm[order], self.v_mm[order],
            tuple(self.shapes[i] for i in order), tuple(self.names[i] for i in order), self.isocentre_mm,
        )  # fmt: skip

    def renamed(self, names: Sequence[str]) -> "ViewGeometry":
        """Return the same views under other names."""
        return ViewGeometry(
            self.source_mm, self.centre_mm, self.u_mm, self.v_mm, self.shapes, tuple(names), self.isocentre_mm
        )

    def shifted(self, offset_mm: Sequence[float] | FloatArray) -> "ViewGeometry":
        """Move sources, detectors and isocentre together by an offset (x, y, z)."""
        offset = frozen_array(offset_mm, (3,), "The offset")
        return ViewGeometry(
            self.source_mm + offset, self.centre_mm + offset, self.u_mm, self.v_mm,
            self.shapes, self.names, self.isocentre() + offset,
        )  # fmt: skip

    def resized(self, shapes: Sequence[tuple[int, int]]) -> "ViewGeometry":
        """Return the same detectors, cut into another number of pixels (rows, columns) each."""
        ratio = np.array(self.shapes) / np.array(list(shapes))
        return ViewGeometry(
            self.source_mm, self.centre_mm, self.u_mm * ratio[:, 1:], self.v_mm * ratio[:, :1],
            tuple(shapes), self.names, self.isocentre_mm,
        )  # fmt: skip

    def bins(self, size_mm: float, at_mm: Sequence[float] | FloatArray) -> list[tuple[int, int]]:
        """Return how many (rows, columns) of each view together are still no larger than `size_mm` at a point."""
        factors = []
        for view, (n_rows, n_columns) in enumerate(self.shapes):
            to_detector = np.linalg.norm(self.centre_mm[view] - self.source_mm[view])
            magnification = to_detector / np.linalg.norm(np.asarray(at_mm) - self.source_mm[view])
            row_mm, column_mm = np.linalg.norm([self.v_mm[view], self.u_mm[view]], axis=1) / magnification
            rows, columns = max(1, int(size_mm / row_mm)), max(1, int(size_mm / column_mm))
            factors.append((min(rows, n_rows), min(columns, n_columns)))
        return factors

    def binned(self, factors: Sequence[tuple[int, int]]) -> "ViewGeometry":
        """Return the geometry of images in which blocks of (rows, columns) pixels are averaged into one.

        Rows and columns at the end that fill no block are left out.
        """
        ratio = np.array(list(factors))
        shapes = np.array(self.shapes) // ratio
        lost = (np.array(self.shapes) - shapes * ratio) / 2
        return ViewGeometry(
            self.source_mm, self.centre_mm - lost[:, 1:] * self.u_mm - lost[:, :1] * self.v_mm,
            self.u_mm * ratio[:, 1:], self.v_mm * ratio[:, :1],
            tuple((int(rows), int(columns)) for rows, columns in shapes), self.names, self.isocentre_mm,
        )  # fmt: skip

    def cropped(self, boxes: Sequence[tuple[slice, slice]]) -> "ViewGeometry":
        """Return the geometry of images of which boxes (rows, columns) are kept."""
        places = np.array([[box[axis].indices(shape[axis])[:2] for axis in (0, 1)]
                           for box, shape in zip(boxes, self.shapes, strict=True)])  # fmt: skip
        moved = (places.sum(-1) - np.array(self.shapes)) / 2
        sizes = places[..., 1] - places[..., 0]
        return ViewGeometry(
            self.source_mm, self.centre_mm + moved[:, 1:] * self.u_mm + moved[:, :1] * self.v_mm, self.u_mm, self.v_mm,
            tuple((int(rows), int(columns)) for rows, columns in sizes), self.names, self.isocentre_mm,
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ViewGeometry):
            return NotImplemented
        return (self.shapes, self.names) == (other.shapes, other.names) and all(
            np.array_equal(getattr(self, key), getattr(other, key)) for key in _KEYS
        ) and np.array_equal(self.isocentre(), other.isocentre())  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.shapes, self.names, self.source_mm.tobytes(), self.centre_mm.tobytes()))


_KEYS = ("source_mm", "centre_mm", "u_mm", "v_mm")
