"""Are arguments understood, brought into one form, or refused with what helps?"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from rdata.dataset.formats.csv import csv_options
from rdata.dataset.formats.csv.types import arrow_type
from rdata.errors import OptionError


def test_a_record_travels() -> None:
    options = csv_options(
        column_types={"a": pa.list_(pa.int64()), "b": "category"},
        timestamp_parsers=[pa_csv.ISO8601, "%d.%m.%Y"],
        null_values=["NA"],
    )
    copy = pickle.loads(pickle.dumps(options))
    assert copy == options
    assert copy.arrow_convert_options().timestamp_parsers == [pa_csv.ISO8601, "%d.%m.%Y"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("delimeter", "delimiter"),
        ("sep", "delimiter"),
        ("dtype", "column_types"),
        ("na_values", "null_values"),
        ("usecols", "include_columns"),
        ("escape_chars", "escape_char"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(name: str, suggestion: str) -> None:
    with pytest.raises(OptionError, match=f"no argument '{name}'; did you mean '{suggestion}'"):
        csv_options(**{name: 1})


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(OptionError, match=r"there are: .*delimiter"):
        csv_options(zzzzzz=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delimiter": ", "}, "delimiter must be one ASCII character, not ', '"),
        ({"delimiter": "é"}, "one ASCII character"),
        ({"delimiter": False}, "one ASCII character"),
        ({"quote_char": "\n"}, "quote_char must not be a line end"),
        ({"header": 0}, "header must be True .* skip_rows"),
        ({"header": ["a"]}, "names go into column_names"),
        ({"column_names": "ab"}, "column_names must be a list of strings"),
        ({"column_names": ["a", "a"]}, "column_names names 'a' twice"),
        ({"include_columns": []}, "include_columns is empty"),
        ({"column_types": ["int64"]}, "must map column names to types"),
        ({"column_types": {"a": "int65"}}, "column_types: 'a': 'int65' names no Arrow type"),
        ({"column_types": {"a": "decimal"}}, "'a'"),
        ({"default_column_type": "int65"}, "default_column_type: 'int65' names no Arrow type"),
        ({"null_values": "NA"}, "null_values must be a list of strings"),
        ({"null_values": 5}, "null_values must be a list of strings, not 5"),
        ({"column_names": 5}, "column_names must be a list of strings, not 5"),
        ({"timestamp_parsers": "%d.%m.%Y"}, "timestamp_parsers must be a list of strings, not '%d"),
        ({"timestamp_parsers": pa_csv.ISO8601}, "timestamp_parsers must be a list of strings"),
        ({"skip_rows": -1}, "skip_rows=-1: give a whole number, 0 or more"),
        (
            {"auto_dict_max_cardinality": "x"},
            "auto_dict_max_cardinality='x': give a whole number",
        ),
        ({"decimal_point": ",,"}, "decimal_point must be one ASCII character, not ',,'"),
        ({"decimal_point": None}, "decimal_point must be one ASCII character, not None"),
        ({"invalid_row_handler": "skip"}, "invalid_row_handler must be a function of a row"),
        ({"check_utf8": "no"}, "check_utf8 must be True or False, not 'no'"),
        ({"split": None}, "split must be True or False, not None"),
        ({"strings_can_be_null": 1}, "strings_can_be_null must be True or False, not 1"),
        ({"encoding": "utf-88"}, "knows no encoding 'utf-88'"),
        ({"encoding": "hex"}, "knows no encoding 'hex'"),
        ({"parse_options": pa_csv.ReadOptions()}, r"must be a pyarrow\.csv\.ParseOptions"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        csv_options(**arguments)


def test_whole_numbers_may_be_numpys() -> None:
    two = np.int8(2)
    options = csv_options(skip_rows=two, skip_rows_after_names=two, auto_dict_max_cardinality=two)
    assert options == csv_options(skip_rows=2, skip_rows_after_names=2, auto_dict_max_cardinality=2)
    assert type(options.skip_rows) is int


class TestArrowsObjects:
    def test_what_they_change_is_taken(self) -> None:
        options = csv_options(
            read_options=pa_csv.ReadOptions(skip_rows=2, column_names=["a"], encoding="latin-1"),
            parse_options=pa_csv.ParseOptions(delimiter=";", quote_char=False, escape_char="\\"),
            convert_options=pa_csv.ConvertOptions(
                column_types={"a": pa.int8()}, null_values=["-"], include_columns=["a"]
            ),
        )
        assert options.skip_rows == 2
        assert options.column_names == ("a",)
        assert not options.has_header
        assert options.encoding == "iso8859-1"
        assert (options.delimiter, options.quote_char, options.escape_char) == (";", None, "\\")
        assert options.column_types == (("a", pa.int8()),)
        assert options.null_values == ("-",)
        assert options.include_columns == ("a",)

    def test_what_they_leave_out_is_arrows_default(self) -> None:
        options = csv_options(
            read_options=pa_csv.ReadOptions(),
            parse_options=pa_csv.ParseOptions(),
            convert_options=pa_csv.ConvertOptions(null_values=["-"]),
        )
        assert (options.has_header, options.column_names, options.include_columns) == (
            True,
            None,
            None,
        )
        assert options.delimiter_of("a.tsv") == ","
        assert not options.arrow_convert_options().strings_can_be_null
        strings = pa_csv.ConvertOptions(null_values=["-"], strings_can_be_null=True)
        assert csv_options(convert_options=strings).arrow_convert_options().strings_can_be_null

    @pytest.mark.parametrize(
        ("argument", "kind", "settings"),
        [
            (
                "read_options",
                pa_csv.ReadOptions,
                {
                    "column_names": ["a"],
                    "encoding": "latin-1",
                    "skip_rows": 2,
                    "skip_rows_after_names": 3,
                },
            ),
            (
                "parse_options",
                pa_csv.ParseOptions,
                {
                    "delimiter": ";",
                    "double_quote": False,
                    "escape_char": "!",
                    "ignore_empty_lines": False,
                    "invalid_row_handler": len,
                    "quote_char": "'",
                },
            ),
            (
                "convert_options",
                pa_csv.ConvertOptions,
                {
                    "auto_dict_encode": True,
                    "auto_dict_max_cardinality": 3,
                    "check_utf8": False,
                    "column_types": {"a": pa.int8()},
                    "decimal_point": ",",
                    "default_column_type": pa.int8(),
                    "false_values": ["n"],
                    "include_columns": ["a"],
                    "include_missing_columns": True,
                    "null_values": ["-"],
                    "quoted_strings_can_be_null": False,
                    "strings_can_be_null": True,
                    "timestamp_parsers": ["%d.%m.%Y"],
                    "true_values": ["y"],
                },
            ),
        ],
    )
    def test_no_setting_is_ignored(
        self, argument: str, kind: Any, settings: dict[str, Any]
    ) -> None:
        from_object = csv_options(**{argument: kind(**settings)})
        from_keywords = csv_options(**settings)
        for name in settings:
            assert getattr(from_object, name) == getattr(from_keywords, name), name
            assert getattr(from_object, name) != getattr(csv_options(), name), name

    def test_what_has_no_meaning_is_refused(self) -> None:
        csv_options(read_options=pa_csv.ReadOptions(use_threads=False))
        with pytest.raises(OptionError, match=r"read_options: block_size=1024 means nothing"):
            csv_options(read_options=pa_csv.ReadOptions(block_size=1024))

    def test_a_keyword_wins(self) -> None:
        options = csv_options(delimiter="|", parse_options=pa_csv.ParseOptions(delimiter=";"))
        assert options.delimiter == "|"

    def test_generated_names_mean_no_header(self) -> None:
        options = csv_options(read_options=pa_csv.ReadOptions(autogenerate_column_names=True))
        assert not options.has_header


def test_any_iterable_of_strings_is_a_list() -> None:
    names = (name for name in ["a", "b"])
    assert csv_options(column_names=names).column_names == ("a", "b")


def test_the_header_is_a_row_unless_names_are_given() -> None:
    assert csv_options().has_header
    assert not csv_options(column_names=["a"]).has_header
    assert csv_options(column_names=["a"], header=True).has_header
    assert not csv_options(header=False).has_header


def test_tsv_files_are_separated_by_tabs() -> None:
    assert csv_options().delimiter_of("a.csv") == ","
    assert csv_options().delimiter_of("a.tsv.gz") == "\t"
    assert csv_options(delimiter=";").delimiter_of("a.tsv") == ";"


@pytest.mark.parametrize(
    ("encoding", "splittable"),
    [
        ("utf-8", True),
        ("UTF8", True),
        ("utf-8-sig", True),
        ("latin-1", True),
        ("ascii", True),
        ("cp1252", True),
        ("koi8-r", True),
        ("utf-16", False),
        ("shift_jis", False),
        ("gbk", False),
        ("utf-7", False),
        ("cp037", False),
    ],
)
def test_only_files_whose_bytes_can_be_cut_are(encoding: str, splittable: bool) -> None:
    assert csv_options(encoding=encoding).is_splittable is splittable
    assert not csv_options(encoding=encoding, split=False).is_splittable


def test_null_values_hold_for_strings_too_unless_told() -> None:
    assert csv_options(null_values=["NA"]).arrow_convert_options().strings_can_be_null
    assert not csv_options().arrow_convert_options().strings_can_be_null
    options = csv_options(null_values=["NA"], strings_can_be_null=False)
    assert not options.arrow_convert_options().strings_can_be_null


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("int64", pa.int64()),
        ("Int32", pa.int32()),
        ("float", pa.float64()),
        ("double", pa.float64()),
        ("str", pa.string()),
        ("object", pa.string()),
        ("boolean", pa.bool_()),
        ("date32", pa.date32()),
        ("timestamp[ms]", pa.timestamp("ms")),
        ("datetime64[ns, Europe/Paris]", pa.timestamp("ns", "Europe/Paris")),
        ("timestamp[s, tz=UTC]", pa.timestamp("s", "UTC")),
        ("decimal128(12, 2)", pa.decimal128(12, 2)),
        ("decimal256(50, 2)", pa.decimal256(50, 2)),
        ("category", pa.dictionary(pa.int32(), pa.string())),
        (int, pa.int64()),
        (bool, pa.bool_()),
        (str, pa.string()),
        (np.int16, pa.int16()),
        (np.str_, pa.string()),
        (np.dtype("float32"), pa.float32()),
        (np.dtype("datetime64[us]"), pa.timestamp("us")),
        (np.dtype("U7"), pa.string()),
        (pd.Int64Dtype(), pa.int64()),
        (pd.StringDtype(), pa.string()),
        (pd.CategoricalDtype(), pa.dictionary(pa.int32(), pa.string())),
        (pd.ArrowDtype(pa.date32()), pa.date32()),
        (pd.DatetimeTZDtype("ns", "UTC"), pa.timestamp("ns", "UTC")),
        (pa.int8(), pa.int8()),
    ],
)
def test_types_have_many_names(given: Any, expected: pa.DataType) -> None:
    assert arrow_type("a", given) == expected
