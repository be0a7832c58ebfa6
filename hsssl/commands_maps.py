"""The commands that write maps by an encoder: features and classes of every pixel."""

from __future__ import annotations

from typing import Any

import hsssl
from hsssl.command_inputs import AS_IT_IS, Argument, Opening, class_names_of, label_map
from hsssl.geotiff_writer import is_geotiff, make_cog
from hsssl.maps import refuse_map
from hsssl.quicklook import refuse_quicklook
from hsssl.spec import spec_of

__all__ = ["classify", "embed"]


def embed(
    run: Argument,
    cube: Argument,
    *,
    out: str,
    opening: Opening = AS_IT_IS,
    cog: bool = False,
    quicklook: bool = False,
    progress: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the features of every pixel of a cube of any size to a file, tile by tile.

    Parameters
    ----------
    run : str
        Run directory of hsssl pretrain.
    cube : str
        Path or scene name.
    out : str
        GeoTIFF (.tif) or ENVI image (any other extension) to write: float32, a band a dimension, NaN where
        nothing was measured.
    cog : bool
        Make the GeoTIFF a cloud-optimised one, with overviews.
    quicklook : bool
        Write a PNG of at most some 1200 pixels a side beside it, named after it.
    progress : bool
        Show a bar with pixels per second where stderr is no terminal too.
    overwrite : bool
        Replace the file at --out, and its quick-look.
    """
    refuse_map(out, overwrite=overwrite)
    if quicklook:
        refuse_quicklook(out, overwrite=overwrite)
    _check_cog(out, cog)
    encoder = hsssl.load_encoder(run)
    opened = opening.open(cube)
    written: dict[str, Any] = {"out": out, "overwrite": overwrite, "quicklook": quicklook}
    hsssl.embed(encoder, opened, progress=progress or None, **written)
    if cog:
        make_cog(out)
    spec = spec_of(encoder)
    print(f"{out}: {opened.rows} x {opened.cols} pixels, {spec.embed_dim * len(spec.windows)} dimensions")


def classify(
    run: Argument,
    cube: Argument,
    *,
    out: str,
    labels: str | None = None,
    classifier: str = "svm",
    opening: Opening = AS_IT_IS,
    cog: bool = False,
    quicklook: bool = False,
    progress: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a class map of a scene of any size, learnt from its labelled pixels, tile by tile.

    Parameters
    ----------
    run : str
        Run directory of hsssl pretrain.
    cube : str
        Path or scene name.
    out : str
        GeoTIFF (.tif) or ENVI classification (any other extension) to write: uint8, nodata 0, palette and
        class names.
    labels : str, optional
        Class ids, 0 unlabelled. A named scene brings its own.
    classifier : str
        knn, linear or svm.
    cog : bool
        Make the GeoTIFF a cloud-optimised one, with overviews.
    quicklook : bool
        Write a PNG of at most some 1200 pixels a side beside it, named after it.
    progress : bool
        Show a bar with pixels per second where stderr is no terminal too.
    overwrite : bool
        Replace the file at --out, and its quick-look.
    """
    refuse_map(out, overwrite=overwrite)
    if quicklook:
        refuse_quicklook(out, overwrite=overwrite)
    _check_cog(out, cog)
    encoder = hsssl.load_encoder(run)
    opened = opening.open(cube)
    truth = label_map(cube, labels, opened)
    hsssl.classify(
        encoder,
        opened,
        truth,
        classifier=classifier,
        class_names=class_names_of(cube),
        out=out,
        overwrite=overwrite,
        quicklook=quicklook,
        progress=progress or None,
    )
    if cog:
        make_cog(out, resampling="nearest")
    print(f"{out}: {opened.rows} x {opened.cols} pixels")


def _check_cog(out: str, cog: bool) -> None:
    if cog and not is_geotiff(out):
        raise ValueError(f"{out}: a cloud-optimised GeoTIFF ends in .tif; rename it, or leave out --cog")
