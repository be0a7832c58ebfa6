"""What is in a cube, for people and for scripts, and what about it looks suspicious."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsssl.cube import Cube
from hsssl.prepare import BandScan, number_ranges, read_parts, scan_bands
from hsssl.sensors import guess_sensor

__all__ = ["describe", "format_description"]

# Numbers that files use for "nothing here", and the highest counts of common converters.
_NODATA_HABITS = (-9999.0, -32768.0, -3.4028234663852886e38)
_SATURATED = (2**12 - 1, 2**14 - 1, 2**15 - 1, 2**16 - 1)
_GAP_STEPS = 3.0
_PLOT_COLUMNS = 72
_BARS = " ▁▂▃▄▅▆▇█"


def describe(cube: Cube) -> dict[str, Any]:
    """Describe a cube in plain values that JSON can hold.

    Parameters
    ----------
    cube : Cube
        Raw, as a reader gives it, or prepared.

    Returns
    -------
    dict
        ``source``, ``rows``, ``cols``, ``bands``, ``dtype``, ``mebibytes``; ``wavelengths`` (None, or range,
        median step, sortedness, gaps over 3 median steps, overlaps, all in nm); ``bad_bands``,
        ``constant_bands`` and ``void_bands`` (numbers in the file, from 0); ``nodata``,
        ``invalid_share``; ``scale``, ``offset``, ``scale_source`` (numbers, or lists by band); ``crs``,
        ``transform``, ``extent`` (left, bottom, right, top in units of the CRS); ``statistics`` of raw
        numbers over valid pixels, and ``band_statistics``, lists by band; ``sensor`` as the file says, and
        ``sensor_guess`` by the wavelengths; ``details``, what else the file says; ``suspicious``, a list of
        sentences.

    Examples
    --------
    >>> describe(Cube(np.arange(8).reshape(2, 2, 2)))["bands"]
    2
    """
    scan = scan_bands(cube)
    number = cube.source_index
    return {
        "source": cube.source,
        "rows": cube.rows,
        "cols": cube.cols,
        "bands": cube.bands,
        "dtype": cube.values.dtype.name,
        "sensor": cube.details.get("sensor"),
        "sensor_guess": None if cube.wavelengths is None else guess_sensor(cube.wavelengths),
        "details": dict(cube.details),
        "mebibytes": round(cube.values.nbytes / 2**20, 3),
        "wavelengths": _describe_wavelengths(cube),
        "bad_bands": number[~cube.good_bands].tolist(),
        "constant_bands": number[scan.constant].tolist(),
        "void_bands": number[scan.void].tolist(),
        "nodata": _plain(cube.nodata),
        "invalid_share": float(1 - cube.valid.mean()),
        "scale": _number_or_list(cube.scale),
        "offset": _number_or_list(cube.offset),
        "scale_source": cube.scale_source,
        "crs": _crs_name(cube.crs),
        "transform": None if cube.transform is None else [float(part) for part in cube.transform],
        "extent": _extent(cube),
        "statistics": _statistics(scan),
        "band_statistics": _band_statistics(scan),
        "suspicious": _suspicious(cube, scan),
    }


def format_description(description: dict[str, Any]) -> str:
    """Lay out what `describe` found as aligned lines for a terminal."""
    d = description
    lines = [
        ("cube", d["source"]),
        (
            "shape",
            f"{d['rows']} rows x {d['cols']} cols x {d['bands']} bands, {d['dtype']}, {d['mebibytes']:g} MiB",
        ),
        ("format", _format_line(d["details"])),
        ("sensor", _sensor_line(d)),
        ("wavelengths", _wavelength_line(d["wavelengths"])),
    ]
    if d["wavelengths"]:
        lines.append(("unit as found", d["details"].get("wavelength unit", "nm")))
        lines += [("gap", f"{low:g} to {high:g} nm") for low, high in d["wavelengths"]["gaps"]]
        lines += [("overlap", f"{low:g} to {high:g} nm") for low, high in d["wavelengths"]["overlaps"]]
    good = d["bands"] - len({*d["bad_bands"], *d["constant_bands"], *d["void_bands"]})
    lines.append(("good bands", f"{good} of {d['bands']}"))
    for kind in ("bad", "constant", "void"):
        numbers = d[f"{kind}_bands"]
        lines.append(
            (f"{kind} bands", f"{len(numbers)} ({number_ranges(numbers)}, from 0)" if numbers else "none")
        )
    nodata = "not stated" if d["nodata"] is None else str(d["nodata"])
    lines.append(("nodata", f"{nodata}, {100 * d['invalid_share']:.3g} % of the pixels invalid"))
    origin = d["scale_source"] or "none stated"
    lines.append(("scale", f"value = raw x {_span(d['scale'])} + {_span(d['offset'])} ({origin})"))
    lines.append(("CRS", d["crs"] or "none"))
    if d["transform"] is not None:
        a, b, c, d_, e, f = d["transform"]
        lines.append(
            ("pixel", f"{np.hypot(a, d_):g} x {np.hypot(b, e):g}, upper left corner ({c:.10g}, {f:.10g})")
        )
    if d["extent"] is not None:
        left, bottom, right, top = d["extent"]
        lines.append(("extent", f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"))
    if d["statistics"]:
        s = d["statistics"]
        spread = f"{s['minimum']:.6g} to {s['maximum']:.6g}, mean {s['mean']:.6g}, std {s['std']:.6g}"
        lines.append(("raw values", spread))
        lines += _plot(d["band_statistics"])
    lines += [("suspicious", sentence) for sentence in d["suspicious"]]
    return "\n".join(f"{label:<15}{text}" for label, text in lines)


def _describe_wavelengths(cube: Cube) -> dict[str, Any] | None:
    if cube.wavelengths is None:
        return None
    centres = np.asarray(cube.wavelengths, dtype=np.float64)
    ordered = np.sort(centres)
    steps = np.diff(ordered)
    steps = steps[steps > 0]
    median = float(np.median(steps)) if steps.size else 0.0
    gaps = np.flatnonzero(np.diff(ordered) > _GAP_STEPS * median) if median else np.zeros(0, dtype=np.int64)
    return {
        "shortest_nm": float(ordered[0]),
        "longest_nm": float(ordered[-1]),
        "median_step_nm": round(median, 4),
        "sorted": bool((np.diff(centres) >= 0).all()),
        "gaps": [[float(ordered[at]), float(ordered[at + 1])] for at in gaps],
        "overlaps": _overlaps(centres),
        "fwhm_nm": None if cube.fwhm is None else [float(cube.fwhm.min()), float(cube.fwhm.max())],
    }


def _overlaps(centres: NDArray[np.float64]) -> list[list[float]]:
    """List the ranges [low, high] in nm covered twice, where the file steps back from high to low."""
    if (np.diff(centres) <= 0).all():
        return []  # sorted downwards, which covers nothing twice
    backwards = np.flatnonzero(np.diff(centres) <= 0)
    return [[float(centres[at + 1]), float(centres[: at + 1].max())] for at in backwards]


def _statistics(scan: BandScan) -> dict[str, float] | None:
    known = ~scan.void
    if not known.any():
        return None
    weight = scan.measured[known] / scan.measured[known].sum()
    mean = float((weight * scan.mean[known]).sum())
    variance = float((weight * (scan.std[known] ** 2 + (scan.mean[known] - mean) ** 2)).sum())
    return {
        "minimum": float(scan.minimum[known].min()),
        "maximum": float(scan.maximum[known].max()),
        "mean": mean,
        "std": float(np.sqrt(variance)),
    }


def _band_statistics(scan: BandScan) -> dict[str, list[float | None]]:
    """Return minimum, maximum, mean and standard deviation of each band; None where nothing was measured."""
    columns = {"minimum": scan.minimum, "maximum": scan.maximum, "mean": scan.mean, "std": scan.std}
    return {
        name: [float(value) if np.isfinite(value) else None for value in column]
        for name, column in columns.items()
    }


def _plot(statistics: dict[str, list[float | None]]) -> list[tuple[str, str]]:
    """Draw mean and standard deviation over the bands of the file, a bar for a few of them; void is empty."""
    return [(f"{name} by band", _bars(statistics[name])) for name in ("mean", "std")]


def _bars(values: list[float | None]) -> str:
    numbers = np.array([np.nan if value is None else value for value in values])
    groups = np.array_split(numbers, min(_PLOT_COLUMNS, numbers.size))
    heights = [np.nan if np.isnan(group).all() else float(np.nanmean(group)) for group in groups]
    low, high = np.nanmin(heights), np.nanmax(heights)
    steps = len(_BARS) - 2
    bars = "".join(
        _BARS[0] if np.isnan(height) else _BARS[1 + round(steps * (height - low) / (high - low or 1))]
        for height in heights
    )
    return f"{bars}  {low:.4g} to {high:.4g}"


def _extent(cube: Cube) -> list[float] | None:
    """Return left, bottom, right and top of the four corners."""
    if cube.transform is None:
        return None
    a, b, c, d, e, f = cube.transform
    corners = [(col, row) for col in (0, cube.cols) for row in (0, cube.rows)]
    x = [a * col + b * row + c for col, row in corners]
    y = [d * col + e * row + f for col, row in corners]
    return [float(edge) for edge in (min(x), min(y), max(x), max(y))]


def _format_line(details: dict[str, str]) -> str:
    parts = [details.get("format", "not known"), details.get("byte order", "")]
    if "interleave" in details:
        parts.insert(1, f"interleave {details['interleave']}")
    return ", ".join(part for part in parts if part)


def _sensor_line(d: dict[str, Any]) -> str:
    stated, guess = d["sensor"], d["sensor_guess"]
    if stated:
        return f"{stated} (the file says so)"
    return f"{guess}? (by its wavelengths)" if guess else "not known"


def _suspicious(cube: Cube, scan: BandScan) -> list[str]:
    if scan.void.all():
        return [f"no valid pixel: all are nodata ({cube.nodata}) or not finite"]
    return [*_suspicious_bands(cube), *_suspicious_values(cube, scan)]


def _suspicious_bands(cube: Cube) -> list[str]:
    found = []
    if cube.bands == 1:
        found.append("one band only: a label map or a panchromatic image?")
    if cube.wavelengths is None:
        found.append("no wavelengths: give --wavelengths, or bands count as 400 + 10 n nm")
    elif (np.diff(cube.wavelengths) <= 0).any():
        backwards = int((np.diff(cube.wavelengths) <= 0).sum())
        found.append(f"wavelengths are not ascending: {backwards} step(s) back or repeated (two detectors?)")
    return found


def _suspicious_values(cube: Cube, scan: BandScan) -> list[str]:
    found = []
    known = ~scan.void
    minimum, maximum = scan.minimum[known], scan.maximum[known]
    lowest, highest = float(minimum.min()), float(maximum.max())
    undeclared = [value for value in _NODATA_HABITS if lowest == value and cube.nodata != value]
    if undeclared:
        found.append(f"the lowest value is {lowest:g}: nodata that the file does not declare?")
    elif lowest < 0:
        bands = int((minimum < 0).sum())
        found.append(
            f"negative values in {bands} band(s), lowest {lowest:g}: no reflectance or radiance is negative"
        )
    if cube.values.dtype.kind in "iu" and highest in _SATURATED:
        bands = int((maximum == highest).sum())
        found.append(f"the highest value is {highest:.0f} in {bands} band(s): saturated?")
    top = float(np.max(scan.maximum * cube.scale + cube.offset, where=known, initial=-np.inf))
    if cube.scale_source and np.max(cube.scale) < 1 and top > 2:
        found.append(
            f"reflectance up to {top:.3g} after the file's scale: is the scale right, or is it glint?"
        )
    black = _black_share(cube)
    if black:
        found.append(
            f"{100 * black:.3g} % of the valid pixels are 0 in every band: fill that is not declared?"
        )
    return found


def _black_share(cube: Cube) -> float:
    black = sum(
        int(np.count_nonzero(~values.any(axis=2) & cube.valid[part])) for part, values in read_parts(cube)
    )
    return black / np.count_nonzero(cube.valid)


def _wavelength_line(wavelengths: dict[str, Any] | None) -> str:
    if wavelengths is None:
        return "none"
    order = "sorted" if wavelengths["sorted"] else "not sorted"
    widths = wavelengths["fwhm_nm"]
    fwhm = f", FWHM {widths[0]:g} to {widths[1]:g} nm" if widths else ""
    return (
        f"{wavelengths['shortest_nm']:g} to {wavelengths['longest_nm']:g} nm, {order}, "
        f"median step {wavelengths['median_step_nm']:g} nm{fwhm}"
    )


def _crs_name(wkt: str | None) -> str | None:
    """Return the name at the head of a WKT: PROJCS["WGS 84 / UTM zone 33N", ..."""
    if wkt is None:
        return None
    found = re.search(r'"([^"]+)"', wkt)
    if found and found[1].lower() not in ("unnamed", "unknown"):
        return found[1]
    from rasterio.crs import CRS

    code = CRS.from_wkt(wkt).to_epsg()
    return f"EPSG:{code}" if code else wkt[:60]


def _plain(value: float | None) -> float | str | None:
    # JSON has no NaN.
    return value if value is None or np.isfinite(value) else str(value)


def _number_or_list(value: float | NDArray[np.floating[Any]]) -> float | list[float]:
    return [float(part) for part in value] if isinstance(value, np.ndarray) else float(value)


def _span(value: float | list[float]) -> str:
    """Write a number, or the range of the bands' numbers."""
    if not isinstance(value, list):
        return f"{value:g}"
    low, high = min(value), max(value)
    return f"{low:g}" if low == high else f"({low:g} to {high:g} by band)"
