"""Stacks of several dates in one image: choose a date, or keep the dates side by side as bands."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from hsssl.cube import Cube

__all__ = ["Order", "choose_date"]

Order = Literal["date", "band"]


def choose_date(
    cube: Cube, dates: int, date: int | None = None, *, order: Order = "date", names: bool = True
) -> Cube:
    """Return one date of a stack, or the stack with each date's bands named.

    Parameters
    ----------
    cube : Cube
        Its bands are those of ``dates`` dates.
    dates : int
        Number of dates.
    date : int or None
        Which one to take, from 0; None keeps all: the dates are folded into the bands, in file order.
    order : {"date", "band"}
        What changes slowest in the file: "date" has all bands of the first date first, "band" all dates of
        the first band.
    names : bool
        With all dates kept, name bands "date 0 band 3" where the file has no names.

    Returns
    -------
    Cube
        `Cube.source_index` says which band of the file each is.

    Raises
    ------
    ValueError
        If the bands are not ``dates`` times some number, or there is no such date.

    Examples
    --------
    >>> choose_date(Cube(np.zeros((2, 2, 6))), dates=3, date=1).source_index
    array([2, 3])
    """
    if not isinstance(dates, int) or not isinstance(date, int | None):
        raise ValueError(f"{cube.source}: dates and date are whole numbers, got {dates!r} and {date!r}")
    if dates < 1 or cube.bands % dates:
        raise ValueError(f"{cube.source}: {cube.bands} bands are not those of {dates} dates; correct dates")
    if order not in ("date", "band"):
        raise ValueError(f"{cube.source}: order must be date or band (what changes slowest), got {order!r}")
    if date is not None and not 0 <= date < dates:
        raise ValueError(f"{cube.source}: date {date} is not among its {dates} dates, counted from 0")
    bands = cube.bands // dates
    flat = np.arange(cube.bands)
    grid = flat.reshape(dates, bands) if order == "date" else flat.reshape(bands, dates).T  # (dates, bands)
    if date is not None:
        return cube.take_bands(grid[date])
    if not names or any(cube.band_names):
        return cube
    labels = [""] * cube.bands
    for day in range(dates):
        for band in range(bands):
            labels[grid[day, band]] = f"date {day} band {band}"
    return replace(cube, band_names=tuple(labels))
