"""The spec: what it refuses, and that it comes back from JSON as it went in."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudnet.errors import ModelError
from cloudnet.spec import (
    BAND_NAMES,
    BANDS,
    CATALOGUE_BANDS,
    CLEAR,
    CLOUD,
    CONTRACTS,
    NO_DATA,
    Spec,
)

ODD = Spec(
    name="odd",
    version="1.2.3",
    bands=("B02", "B08"),
    reflectance_range=(-0.1, 2.5),
    pixel_m=(10.0, 20.0),
    levels=("L2A",),
    stride=8,
    halo_px=24,
    exact_halo_px=96,
    threshold=0.37,
    contract="nchw-224",
)


def changed(**values: Any) -> dict[str, Any]:
    return {**ODD.to_dict(), **values}


def test_band_order_is_red_green_blue_nir_and_the_catalogue_has_b8a_after_b08() -> None:
    assert BANDS == ("B04", "B03", "B02", "B08")
    assert [CATALOGUE_BANDS.index(band) for band in BANDS] == [3, 2, 1, 7]
    assert len(CATALOGUE_BANDS) == 13
    assert CATALOGUE_BANDS.index("B8A") == 8
    assert [BAND_NAMES[band][-1] for band in BANDS] == ["red", "green", "blue", "nir"]


def test_the_values_of_a_mask_are_those_of_the_contract() -> None:
    assert (CLEAR, CLOUD, NO_DATA) == (0, 1, 255)


def test_json_gives_the_spec_back() -> None:
    differs = [field.name for field in fields(Spec) if getattr(ODD, field.name) == field.default]
    assert differs == []  # a field left at its default would prove nothing
    assert Spec.from_json(ODD.to_json(), "x.onnx") == ODD
    assert Spec.from_dict(ODD.to_dict(), "x.onnx") == ODD
    assert Spec.from_dict(asdict(ODD), "x.onnx") == ODD
    assert hash(Spec.from_json(ODD.to_json(), "x.onnx")) == hash(ODD)


@given(
    low=st.floats(-1, 0.5),
    span=st.floats(0.01, 3),
    threshold=st.floats(0.001, 0.999),
    stride=st.integers(1, 64),
    name=st.text(),
    contract=st.sampled_from(CONTRACTS),
)
def test_json_gives_any_spec_back(
    low: float, span: float, threshold: float, stride: int, name: str, contract: str
) -> None:
    spec = Spec(
        name,
        "1",
        reflectance_range=(low, low + span),
        threshold=threshold,
        stride=stride,
        halo_px=3 * stride,
        exact_halo_px=5 * stride,
        contract=contract,
    )
    assert Spec.from_json(spec.to_json(), "x") == spec


def test_a_halo_may_be_none_and_the_pixel_size_one() -> None:
    spec = Spec("x", "1", pixel_m=(10.0, 10.0), stride=1, halo_px=0, exact_halo_px=0)
    assert Spec.from_json(spec.to_json(), "x") == spec


def test_to_dict_holds_json_types_only() -> None:
    assert ODD.to_dict() == json.loads(ODD.to_json())
    assert ODD.to_dict()["bands"] == ["B02", "B08"]


def test_whole_numbers_are_read_as_floats_where_floats_are_meant() -> None:
    spec = Spec.from_dict(changed(reflectance_range=[0, 2], pixel_m=[10, 60]), "x.onnx")
    assert spec.reflectance_range == (0.0, 2.0)
    assert isinstance(spec.reflectance_range[0], float)


def test_another_threshold_leaves_the_rest() -> None:
    assert ODD.with_threshold(0.9).to_dict() == changed(threshold=0.9)
    assert ODD.threshold == 0.37
    with pytest.raises(FrozenInstanceError):
        ODD.threshold = 0.9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"bands": ()}, "bands"),
        ({"bands": ("B04", "B04")}, "bands"),
        ({"reflectance_range": (1.0, 1.0)}, "reflectance range"),
        ({"reflectance_range": (1.0, 0.0)}, "reflectance range"),
        ({"reflectance_range": (0.0, float("inf"))}, "reflectance range"),
        ({"reflectance_range": (float("nan"), 1.0)}, "reflectance range"),
        ({"pixel_m": (20.0, 10.0)}, "pixel size"),
        ({"pixel_m": (0.0, 10.0)}, "pixel size"),
        ({"stride": 0}, "stride"),
        ({"halo_px": -1}, "halo"),
        ({"exact_halo_px": -1}, "halo"),
        ({"stride": 16, "halo_px": 40, "exact_halo_px": 96}, "halo"),
        ({"stride": 16, "halo_px": 32, "exact_halo_px": 100}, "halo"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"contract": "nchw"}, "contract"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        Spec("x", "1", **values)
    with pytest.raises(ModelError, match=rf"^x\.onnx: .*{reason}"):
        Spec.from_dict(changed(**values), "x.onnx")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("name", 3),
        ("version", 1.0),
        ("bands", "B04"),
        ("bands", [1, 2, 3, 4]),
        ("bands", [["B04"]]),
        ("reflectance_range", [0.0]),
        ("reflectance_range", [0.0, 1.0, 2.0]),
        ("reflectance_range", ["0", "1"]),
        ("reflectance_range", 1.6),
        ("pixel_m", None),
        ("levels", "L1C"),
        ("stride", 16.5),
        ("stride", "16"),
        ("stride", True),
        ("halo_px", None),
        ("threshold", "0.5"),
        pytest.param("threshold", 10**400, id="threshold-beyond floats"),
        ("contract", ["nhwc"]),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ModelError, match=rf"^x\.onnx: .*{field}"):
        Spec.from_dict(changed(**{field: value}), "x.onnx")


@pytest.mark.parametrize("field", [field.name for field in fields(Spec)])
def test_a_missing_field_is_refused_and_not_filled_with_a_default(field: str) -> None:
    values = ODD.to_dict()
    del values[field]
    with pytest.raises(ModelError, match=rf"^x\.onnx: its spec lacks {field}"):
        Spec.from_dict(values, "x.onnx")


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"^x\.onnx: its spec holds colour, unknown"):
        Spec.from_dict(changed(colour="blue"), "x.onnx")


NESTED, DIGITS = "[" * 100_000, "9" * 5_000


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"spec"', NESTED, DIGITS], ids=len)
def test_text_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"^x\.onnx: its spec is not"):
        Spec.from_json(text, "x.onnx")
