//! Arrays against PostgreSQL's answers, in their text form.

use super::super::{all, cast_array};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};
use std::sync::Arc;

/// Values of a type in their text form.
type Texts<'a> = (&'a str, &'a [Option<&'a str>]);

fn type_of(name: &str) -> DataType {
    if let Some(element) = name.strip_suffix("[]") {
        return super::list_of(type_of(element));
    }
    match name {
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        "int4" => DataType::Int32,
        "int8" => DataType::Int64,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "numeric" => DataType::LargeBinary,
        "jsonb" => DataType::BinaryView,
        "bytea" => DataType::Binary,
        "uuid" => DataType::FixedSizeBinary(16),
        "date" => DataType::Date32,
        "interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => DataType::Utf8,
    }
}

fn column((name, texts): Texts) -> ArrayRef {
    let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    cast_array(&texts, &type_of(name)).unwrap()
}

/// Calls a function; the result as texts, and its type.
fn call(name: &str, args: Vec<ColumnarValue>) -> Result<(Vec<Option<String>>, DataType)> {
    let function = all().into_iter().find(|f| f.name() == name).unwrap();
    let types: Vec<DataType> = args.iter().map(ColumnarValue::data_type).collect();
    let taken = function.coerce_types(&types)?;
    let rows = args.iter().find_map(|a| match a {
        ColumnarValue::Array(array) => Some(array.len()),
        ColumnarValue::Scalar(_) => None,
    });
    let args = args
        .into_iter()
        .zip(&taken)
        .map(|(arg, to)| match arg {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(cast_array(&array, to)?)),
            ColumnarValue::Scalar(value) => {
                let array = cast_array(&value.to_array()?, to)?;
                let value = ScalarValue::try_from_array(&array, 0)?;
                Ok(ColumnarValue::Scalar(value))
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let arg_fields: Vec<_> = taken
        .iter()
        .map(|t| Arc::new(Field::new("a", t.clone(), true)))
        .collect();
    let scalars = vec![None; args.len()];
    let return_field = function.return_field_from_args(ReturnFieldArgs {
        arg_fields: &arg_fields,
        scalar_arguments: &scalars,
    })?;
    let data_type = return_field.data_type().clone();
    let number_rows = rows.unwrap_or(1);
    let value = function.invoke_with_args(ScalarFunctionArgs {
        args,
        arg_fields,
        number_rows,
        return_field,
        config_options: Arc::new(ConfigOptions::new()),
    })?;
    let array = value.into_array(number_rows)?;
    assert_eq!(array.data_type(), &data_type, "{name}");
    let texts = cast_array(&array, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>().iter();
    Ok((texts.map(|t| t.map(str::to_string)).collect(), data_type))
}

/// Checks a function over columns, over constants row by row, and over constants in all places but
/// the first.
fn check(name: &str, args: &[Texts], wanted: &[Option<&str>]) {
    let columns: Vec<ArrayRef> = args.iter().map(|a| column(*a)).collect();
    let arrays = columns.iter().map(|c| ColumnarValue::Array(c.clone()));
    let (found, _) = call(name, arrays.collect()).unwrap();
    let found: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
    assert_eq!(found, wanted, "{name}{args:?}");
    let constant = |c: &ArrayRef, row: usize| {
        ColumnarValue::Scalar(ScalarValue::try_from_array(c, row).unwrap())
    };
    for (row, wanted) in wanted.iter().enumerate() {
        let constants = columns.iter().map(|c| constant(c, row));
        let (found, _) = call(name, constants.collect()).unwrap();
        assert_eq!(found[0].as_deref(), *wanted, "{name}{args:?} row {row}");
        let mixed = columns.iter().enumerate().map(|(i, c)| match i {
            0 => ColumnarValue::Array(c.slice(row, 1)),
            _ => constant(c, row),
        });
        let (found, _) = call(name, mixed.collect()).unwrap();
        assert_eq!(found[0].as_deref(), *wanted, "{name}{args:?} row {row}");
    }
}

/// The SQLSTATE of a call over one row.
fn state(name: &str, args: &[Texts]) -> String {
    let arrays = args.iter().map(|a| ColumnarValue::Array(column(*a)));
    let error = call(name, arrays.collect()).unwrap_err();
    match error {
        datafusion_common::DataFusionError::External(e) => {
            let e = e.downcast_ref::<tidemark_common::Error>().unwrap();
            e.state().0.to_string()
        }
        other => other.to_string(),
    }
}

#[test]
fn arrays_grow_and_shrink() {
    let ints: Texts = ("int4[]", &[Some("{1,2,NULL}"), Some("{}"), None]);
    let one: Texts = ("int4", &[Some("7"), None, Some("8")]);
    check(
        "array_append",
        &[ints, one],
        &[Some("{1,2,NULL,7}"), Some("{NULL}"), Some("{8}")],
    );
    check(
        "array_prepend",
        &[one, ints],
        &[Some("{7,1,2,NULL}"), Some("{NULL}"), Some("{8}")],
    );
    let others: Texts = ("int4[]", &[None, Some("{3}"), None]);
    check(
        "array_cat",
        &[ints, others],
        &[Some("{1,2,NULL}"), Some("{3}"), None],
    );
    let n: Texts = ("int4", &[Some("2"), Some("0"), Some("1")]);
    check("trim_array", &[ints, n], &[Some("{1}"), Some("{}"), None]);
    assert_eq!(
        state(
            "trim_array",
            &[("int4[]", &[Some("{1}")]), ("int4", &[Some("2")])]
        ),
        "2202E"
    );
    assert_eq!(
        state(
            "trim_array",
            &[("int4[]", &[Some("{1}")]), ("int4", &[Some("-1")])]
        ),
        "2202E"
    );
    check(
        "array_append",
        &[("int4[]", &[Some("{1}")]), ("numeric", &[Some("2.50")])],
        &[Some("{1,2.50}")],
    );
}

#[test]
fn elements_are_equal_as_values() {
    check(
        "array_remove",
        &[
            (
                "numeric[]",
                &[Some("{1.0,1.00,2,NULL}"), Some("{NULL,1}"), None],
            ),
            ("numeric", &[Some("1"), None, Some("1")]),
        ],
        &[Some("{2,NULL}"), Some("{1}"), None],
    );
    check(
        "array_replace",
        &[
            ("float8[]", &[Some("{NaN,1,NaN}"), Some("{NULL,-0}")]),
            ("float8", &[Some("NaN"), Some("0")]),
            ("float8", &[Some("5"), None]),
        ],
        &[Some("{5,1,5}"), Some("{NULL,NULL}")],
    );
    check(
        "array_position",
        &[
            (
                "jsonb[]",
                &[
                    Some("{\"{\\\"a\\\": 1}\",2}"),
                    Some("{1.0}"),
                    Some("{NULL}"),
                ],
            ),
            ("jsonb", &[Some("2.0"), Some("3"), None]),
        ],
        &[Some("2"), None, Some("1")],
    );
    check(
        "array_positions",
        &[
            (
                "interval[]",
                &[Some("{\"1 day\",\"24:00:00\",\"1 mon\"}"), None],
            ),
            ("interval", &[Some("1 day"), None]),
        ],
        &[Some("{1,2}"), None],
    );
    let start: Texts = ("int4", &[Some("2"), Some("-5")]);
    check(
        "array_position",
        &[
            ("text[]", &[Some("{a,b,a}"), Some("{a,b,a}")]),
            ("text", &[Some("a"), Some("a")]),
            start,
        ],
        &[Some("3"), Some("1")],
    );
    let position: [Texts; 3] = [
        ("text[]", &[Some("{a}")]),
        ("text", &[Some("a")]),
        ("int4", &[None]),
    ];
    assert_eq!(state("array_position", &position), "22004");
}

#[test]
fn arrays_hold_arrays_without_their_nulls() {
    let left: Texts = (
        "int4[]",
        &[
            Some("{1,2,2}"),
            Some("{1,NULL}"),
            Some("{1}"),
            Some("{}"),
            None,
        ],
    );
    let right: Texts = (
        "int4[]",
        &[
            Some("{2,1}"),
            Some("{NULL}"),
            Some("{}"),
            Some("{}"),
            Some("{}"),
        ],
    );
    check(
        "array_contains",
        &[left, right],
        &[
            Some("true"),
            Some("false"),
            Some("true"),
            Some("true"),
            None,
        ],
    );
    check(
        "array_overlaps",
        &[left, right],
        &[
            Some("true"),
            Some("false"),
            Some("false"),
            Some("false"),
            None,
        ],
    );
}

#[test]
fn arrays_are_measured() {
    let arrays: Texts = ("date[]", &[Some("{2024-02-29,NULL}"), Some("{}"), None]);
    let first: Texts = ("int4", &[Some("1"); 3]);
    let second: Texts = ("int4", &[Some("2"); 3]);
    check("array_length", &[arrays, first], &[Some("2"), None, None]);
    check("array_length", &[arrays, second], &[None, None, None]);
    check("array_upper", &[arrays, first], &[Some("2"), None, None]);
    check("array_lower", &[arrays, first], &[Some("1"), None, None]);
    check("array_ndims", &[arrays], &[Some("1"), None, None]);
    check("array_dims", &[arrays], &[Some("[1:2]"), None, None]);
    check("cardinality", &[arrays], &[Some("2"), Some("0"), None]);
}

#[test]
fn subscripts_and_slices() {
    let arrays: Texts = ("text[]", &[Some("{a,NULL,c}"); 5]);
    let index: Texts = (
        "int4",
        &[Some("1"), Some("2"), Some("0"), Some("-1"), Some("4")],
    );
    check(
        "array_subscript",
        &[arrays, index],
        &[Some("a"), None, None, None, None],
    );
    let one: Texts = ("int4", &[Some("1"); 5]);
    check("array_subscript", &[arrays, one, one], &[None; 5]);
    let lower: Texts = (
        "int4",
        &[Some("2"), Some("-9"), Some("3"), None, Some("-2147483648")],
    );
    let upper: Texts = (
        "int4",
        &[
            Some("3"),
            Some("1"),
            Some("2"),
            Some("2"),
            Some("2147483647"),
        ],
    );
    check(
        "array_subscripts",
        &[arrays, lower, upper],
        &[
            Some("{NULL,c}"),
            Some("{a}"),
            Some("{}"),
            None,
            Some("{a,NULL,c}"),
        ],
    );
}

#[test]
fn arrays_are_filled_in_one_dimension() {
    let fill = |element: Texts, dimensions: &str| {
        let arrays = vec![
            ColumnarValue::Array(column(element)),
            ColumnarValue::Array(column(("int4[]", &[Some(dimensions)]))),
        ];
        call("array_fill", arrays).map(|(texts, _)| texts[0].clone().unwrap())
    };
    assert_eq!(
        fill(("text", &[Some("x y")]), "{2}").unwrap(),
        "{\"x y\",\"x y\"}"
    );
    assert_eq!(fill(("int8", &[None]), "{3}").unwrap(), "{NULL,NULL,NULL}");
    assert_eq!(fill(("int8", &[Some("1")]), "{}").unwrap(), "{}");
    assert_eq!(fill(("int8", &[Some("1")]), "{0,5}").unwrap(), "{}");
    let one: Texts = ("int8", &[Some("1")]);
    let states = [
        ("{2,2}", None, "0A000"),
        ("{-1}", None, "54000"),
        ("{NULL}", None, "22004"),
        ("{2}", Some("{0}"), "0A000"),
        ("{2}", Some("{}"), "2202E"),
    ];
    for (dimensions, bounds, wanted) in states {
        let bounds = bounds.map(|b| [Some(b)]);
        let mut args: Vec<Texts> = vec![one];
        let dimensions = [Some(dimensions)];
        args.push(("int4[]", &dimensions));
        if let Some(bounds) = &bounds {
            args.push(("int4[]", bounds));
        }
        assert_eq!(state("array_fill", &args), wanted, "{args:?}");
    }
}

#[test]
fn texts_become_arrays_and_back() {
    check(
        "string_to_array",
        &[
            (
                "text",
                &[Some(""), Some("äb"), Some("ab"), Some("a,b,"), None],
            ),
            ("text", &[Some(","), None, Some(""), Some(","), Some(",")]),
        ],
        &[
            Some("{}"),
            Some("{ä,b}"),
            Some("{ab}"),
            Some("{a,b,\"\"}"),
            None,
        ],
    );
    check(
        "string_to_array",
        &[
            ("text", &[Some("a,x"), Some("x")]),
            ("text", &[Some(","), None]),
            ("text", &[Some("x"), Some("x")]),
        ],
        &[Some("{a,NULL}"), Some("{NULL}")],
    );
    let arrays: Texts = ("bool[]", &[Some("{t,NULL,f}"), Some("{}"), None]);
    let comma: Texts = ("text", &[Some(", "); 3]);
    let null: Texts = ("text", &[Some("*"), Some("*"), Some("*")]);
    check(
        "array_to_string",
        &[arrays, comma],
        &[Some("t, f"), Some(""), None],
    );
    check(
        "array_to_string",
        &[arrays, comma, null],
        &[Some("t, *, f"), Some(""), None],
    );
}

#[test]
fn arrays_are_made_of_columns() {
    check(
        "make_array",
        &[
            ("int4", &[Some("1"), None]),
            ("int4", &[Some("2"), Some("3")]),
        ],
        &[Some("{1,2}"), Some("{NULL,3}")],
    );
    let (texts, data_type) = call("make_array", Vec::new()).unwrap();
    assert_eq!(texts, [Some("{}".into())]);
    assert_eq!(data_type, super::list_of(DataType::Null));
}

#[test]
fn arrays_sort_by_element_and_then_by_length() {
    let cases: [(&str, &[&str]); 7] = [
        (
            "int4[]",
            &[
                "{}", "{-1}", "{0}", "{0,5}", "{1}", "{1,NULL}", "{2}", "{NULL}",
            ],
        ),
        (
            "float8[]",
            &[
                "{-Infinity}",
                "{-1}",
                "{0}",
                "{1}",
                "{Infinity}",
                "{NaN}",
                "{NULL}",
            ],
        ),
        (
            "numeric[]",
            &[
                "{-2.5}", "{0}", "{1.0}", "{1.00,1}", "{10}", "{NaN}", "{NULL}",
            ],
        ),
        (
            "text[]",
            &[
                "{}", "{\"\"}", "{a}", "{a,a}", "{aa}", "{b}", "{ä}", "{NULL}",
            ],
        ),
        (
            "bytea[]",
            &[
                "{\"\\\\x\"}",
                "{\"\\\\x00\"}",
                "{\"\\\\x0000\"}",
                "{\"\\\\x01\"}",
                "{\"\\\\xff\"}",
            ],
        ),
        (
            "interval[]",
            &["{\"-1 days\"}", "{00:00:00}", "{23:00:00}", "{\"1 day\"}"],
        ),
        ("bool[]", &["{f}", "{f,f}", "{t}", "{NULL}"]),
    ];
    for (name, sorted) in cases {
        let texts: Vec<Option<&str>> = sorted.iter().map(|t| Some(*t)).collect();
        let lists = column((name, &texts));
        let keys = super::sort_keys(lists.as_list()).unwrap();
        assert!(
            keys.iter().collect::<Vec<_>>().is_sorted_by(|a, b| a < b),
            "{name}"
        );
        let bytes = super::bytes_of(&lists).unwrap();
        let bytes = bytes.as_binary::<i32>();
        assert!(
            bytes.iter().collect::<Vec<_>>().is_sorted_by(|a, b| a < b),
            "{name}"
        );
        let back = super::of_bytes(bytes, lists.data_type()).unwrap();
        assert_eq!(&back, &lists, "{name}");
        let (first, rest) = (sorted[0], &sorted[1..]);
        for other in rest {
            let pair: [Texts; 2] = [(name, &[Some(other)]), (name, &[Some(first)])];
            check("array_greatest", &pair, &[Some(*other)]);
            check("array_least", &pair, &[Some(first)]);
        }
    }
    let equal = column((
        "numeric[]",
        &[Some("{1.0,NULL}"), Some("{1.00,NULL}"), None],
    ));
    let keys = super::sort_keys(equal.as_list()).unwrap();
    assert_eq!(keys.value(0), keys.value(1));
    assert!(keys.is_null(2));
}

#[test]
fn lists_of_rows() {
    let bounds: [Texts; 3] = [
        (
            "int4",
            &[Some("1"), Some("3"), Some("2147483646"), Some("2")],
        ),
        (
            "int4",
            &[Some("3"), Some("1"), Some("2147483647"), Some("1")],
        ),
        ("int4", &[Some("1"), Some("-2"), Some("5"), Some("1")]),
    ];
    check(
        "series_list",
        &bounds,
        &[
            Some("{1,2,3}"),
            Some("{3,1}"),
            Some("{2147483646}"),
            Some("{}"),
        ],
    );
    check(
        "series_list",
        &[("numeric", &[Some("1.5")]), ("int4", &[Some("3")])],
        &[Some("{1.5,2.5}")],
    );
    check(
        "series_list",
        &[
            ("timestamp", &[Some("2020-01-31")]),
            ("timestamp", &[Some("2020-05-01")]),
            ("interval", &[Some("1 mon -1 day")]),
        ],
        &[Some(
            "{\"2020-01-31 00:00:00\",\"2020-02-28 00:00:00\",\"2020-03-27 00:00:00\",\
             \"2020-04-26 00:00:00\"}",
        )],
    );
    let dates = vec![type_of("date"), type_of("date"), type_of("interval")];
    let zoned = type_of("timestamptz");
    assert_eq!(
        super::series::of_series(&dates).unwrap()[..2],
        [zoned.clone(), zoned]
    );
    assert_eq!(
        state(
            "series_list",
            &[
                ("int4", &[Some("1")]),
                ("int4", &[Some("2")]),
                ("int4", &[Some("0")])
            ]
        ),
        "22023"
    );
    assert_eq!(
        state(
            "series_list",
            &[("numeric", &[Some("NaN")]), ("numeric", &[Some("2")])]
        ),
        "22023"
    );
    check(
        "subscripts_list",
        &[
            ("text[]", &[Some("{a,b}"), Some("{}"), None]),
            ("int4", &[Some("1"); 3]),
            ("bool", &[Some("t"); 3]),
        ],
        &[Some("{2,1}"), Some("{}"), None],
    );
    let longest = vec![
        ColumnarValue::Array(column(("int4[]", &[Some("{1}")]))),
        ColumnarValue::Array(column(("text[]", &[Some("{a,b}")]))),
    ];
    assert_eq!(
        call("ordinals_list", longest).unwrap().0,
        [Some("{1,2}".into())]
    );
}

#[test]
fn elements_are_cast_one_by_one() {
    let named = |name: &str| {
        let field = Field::new_list_field(DataType::Utf8, true);
        let metadata = [("sql_type".to_string(), name.to_string())].into();
        DataType::List(Arc::new(field.with_metadata(metadata)))
    };
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(cast_array(&numbers, &type_of("int4[]")).is_err());
    let texts = column(("text[]", &[Some("{äbcde,NULL}")]));
    let cut = cast_array(&texts, &named("varchar(3)")).unwrap();
    assert_eq!(
        cut.as_list::<i32>().value(0).as_string::<i32>().value(0),
        "äbc"
    );
    assert!(cast_array(&texts, &type_of("uuid[]")).is_err());
    let rounded = cast_array(
        &column(("float8[]", &[Some("{1.5,2.5,NULL}")])),
        &type_of("int4[]"),
    );
    let rounded = cast_array(&rounded.unwrap(), &DataType::Utf8).unwrap();
    assert_eq!(rounded.as_string::<i32>().value(0), "{2,2,NULL}");
}

#[test]
fn what_is_collected() {
    let lists: Texts = (
        "text[]",
        &[Some("{a,NULL,b}"), Some("{NULL}"), Some("{}"), None],
    );
    let between: Texts = ("text[]", &[Some("{x,y,+}"), Some("{-}"), Some("{}"), None]);
    check(
        "joined_list",
        &[lists, between],
        &[Some("a+b"), None, None, None],
    );
    let comma: Texts = ("text", &[Some(", "); 4]);
    check(
        "joined_list",
        &[lists, comma],
        &[Some("a, b"), None, None, None],
    );
    let bytes: [Texts; 2] = [
        ("bytea[]", &[Some("{\"\\\\x61\",\"\\\\x62\"}")]),
        ("bytea", &[Some("\\x2c")]),
    ];
    check("joined_list", &bytes, &[Some("\\x612c62")]);
    check(
        "jsonb_of_lists",
        &[
            ("text[]", &[Some("{a,b,a}"), None]),
            ("jsonb[]", &[Some("{1,NULL,3}"), None]),
        ],
        &[Some("{\"a\": 3, \"b\": null}"), None],
    );
    let nameless: [Texts; 2] = [("text[]", &[Some("{NULL}")]), ("jsonb[]", &[Some("{1}")])];
    assert_eq!(state("jsonb_of_lists", &nameless), "22023");
}

#[test]
fn arrays_compare() {
    let left: Texts = (
        "int4[]",
        &[Some("{1}"), Some("{1,NULL}"), Some("{2}"), None],
    );
    let right: Texts = (
        "int4[]",
        &[Some("{1,2}"), Some("{1,NULL}"), Some("{1,9}"), Some("{}")],
    );
    check(
        "array_eq",
        &[left, right],
        &[Some("false"), Some("true"), Some("false"), None],
    );
    check(
        "array_lt",
        &[left, right],
        &[Some("true"), Some("false"), Some("false"), None],
    );
    check(
        "array_ge",
        &[left, right],
        &[Some("false"), Some("true"), Some("true"), None],
    );
}
