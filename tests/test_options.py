"""Options of the wrong kind are refused where methods and encoders are made, by name and with the default."""

import inspect

import pytest

from hsssl.encoders import ENCODERS, build_encoder
from hsssl.methods import METHODS, build_method

OPTIONS = [
    (kind, name, option)
    for kind, registry in (("encoder", ENCODERS), ("method", METHODS))
    for name, made in registry.items()
    for option in inspect.signature(made).parameters
    if option != "encoder"
]


def build(kind: str, name: str, options: dict[str, object]) -> object:
    if kind == "encoder":
        return build_encoder(name, **options)
    return build_method(name, build_encoder("spectral_spatial", dim=8, hidden=8, channels=8), **options)


@pytest.mark.parametrize(("kind", "name", "option"), OPTIONS)
def test_no_option_takes_text_or_what_is_not_finite(kind, name, option):
    for value in ("abc", float("nan"), [1, "abc"]):
        with pytest.raises(ValueError, match=f"{kind} {name}: `{option}` must be .*got .*; its default is"):
            build(kind, name, {option: value})


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        ("encoder", "spectral_spatial", {"dim": -4}, "`dim` must be a whole number, at least 1, got -4"),
        ("encoder", "spectral_spatial", {"depth": -1}, "`depth` must be a whole number, at least 0, got -1"),
        ("encoder", "spectral_spatial", {"channels": 1}, "channels must be at least 2, got 1"),
        (
            "encoder",
            "spectral_transformer",
            {"heads": 0},
            "`heads` must be a whole number, at least 1, got 0",
        ),
        ("encoder", "spectral_transformer", {"group": True}, "`group` must be a whole number, at least 1"),
        ("method", "simclr", {"hidden": 16.0}, "`hidden` must be a whole number, at least 1, got 16.0"),
        ("method", "simclr", {"temperature": True}, "`temperature` must be a finite number, got True"),
        ("method", "mae", {"mask": "abc"}, "`mask` must be a finite number or null, got 'abc'; its default"),
        ("method", "mae", {"neighbour": 1}, "`neighbour` must be true or false, got 1; its default is True"),
        (
            "method",
            "pcl",
            {"clusters": 20},
            "`clusters` must be a list, each entry a whole number, at least 0",
        ),
    ],
)
def test_the_message_says_what_is_wanted(kind, name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        build(kind, name, options)
    assert "\n" not in str(error.value)


def test_what_fits_is_taken():
    assert build("encoder", "spectral_spatial", {"depth": 0, "dim": 8}).embed_dim == 8
    build("method", "mae", {"mask": None, "components": 0})
    build("method", "pcl", {"clusters": (4, 8), "temperature": 1})
