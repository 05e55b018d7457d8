//! JSONB: its operators and functions (`tidemark_values::jsonb`) over columns. A value is bytes to
//! Arrow, in views of binary values; the planner writes the operators as calls of these functions.

use super::definition::*;
use arrow::array::*;
use arrow::datatypes::*;
use datafusion_common::{Result, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_values::jsonb::{self, Builder, Value};
use tidemark_values::moment::{self, Zone};
use tidemark_values::numeric::Numeric;

/// The type of JSONB; no other type is a `BinaryView`.
pub(super) const JSONB: DataType = DataType::BinaryView;

type Bytes = Option<Vec<u8>>;

fn is_json(data_type: &DataType) -> bool {
    *data_type == JSONB || *data_type == DataType::Null
}

fn is_path(data_type: &DataType) -> bool {
    is_text(data_type) || matches!(data_type, DataType::List(f) if is_text(f.data_type()))
}

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let mut all = reading();
    all.extend(changing());
    all.extend(making());
    all
}

fn reading() -> Vec<Definition> {
    let by_key = |types: &[DataType]| match types {
        [j, k] if is_json(j) && is_text(k) => Some(vec![JSONB, DataType::Utf8]),
        [j, k] if is_json(j) && is_int(k) => Some(vec![JSONB, DataType::Int64]),
        _ => None,
    };
    let by_path = |types: &[DataType]| match types {
        [j, p] if is_json(j) && is_path(p) => Some(vec![JSONB, path_type(p)]),
        [j, rest @ ..] if is_json(j) && rest.iter().all(is_text) => {
            let mut taken = vec![DataType::Utf8; types.len()];
            taken[0] = JSONB;
            Some(taken)
        }
        _ => None,
    };
    let of_json = |types: &[DataType]| match types {
        [j] if is_json(j) => Some(vec![JSONB]),
        _ => None,
    };
    let two_json = |types: &[DataType]| match types {
        [a, b] if is_json(a) && is_json(b) => Some(vec![JSONB; 2]),
        _ => None,
    };
    let text = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |_: &[DataType]| DataType::Utf8,
        evaluate,
    };
    let json = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |_: &[DataType]| JSONB,
        evaluate,
    };
    let truth = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |_: &[DataType]| DataType::Boolean,
        evaluate,
    };
    let int = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |_: &[DataType]| DataType::Int32,
        evaluate,
    };
    vec![
        json("jsonb_get", by_key, |a| {
            values(a, |row| found(row, at_key)?.map(|v| v.to_vec()).transpose())
        }),
        text("jsonb_get_text", by_key, |a| {
            texts(a, |row| match found(row, at_key)? {
                Some(v) => v.to_text(),
                None => Ok(None),
            })
        }),
        json("jsonb_extract_path", by_path, |a| {
            values(a, |row| {
                found(row, at_path)?.map(|v| v.to_vec()).transpose()
            })
        }),
        text("jsonb_extract_path_text", by_path, |a| {
            texts(a, |row| match found(row, at_path)? {
                Some(v) => v.to_text(),
                None => Ok(None),
            })
        }),
        text("jsonb_typeof", of_json, |a| {
            texts(a, |row| Ok(Some(row.value(0).kind()?.name().to_string())))
        }),
        text("jsonb_pretty", of_json, |a| {
            texts(a, |row| {
                let mut text = String::new();
                row.value(0).pretty(&mut text)?;
                Ok(Some(text))
            })
        }),
        int("jsonb_array_length", of_json, |a| {
            let lengths = each(a, |row| Ok(Some(row.value(0).array_length()? as i32)))?;
            result(a, Arc::new(Int32Array::from(lengths)))
        }),
        truth("jsonb_contains", two_json, |a| {
            truths(a, |row| jsonb::contains(row.value(0), row.value(1)))
        }),
        truth("jsonb_contained", two_json, |a| {
            truths(a, |row| jsonb::contains(row.value(1), row.value(0)))
        }),
        truth(
            "jsonb_exists",
            |types| match types {
                [j, k] if is_json(j) && is_text(k) => Some(vec![JSONB, DataType::Utf8]),
                _ => None,
            },
            |a| truths(a, |row| jsonb::exists(row.value(0), row.text(1))),
        ),
        truth(
            "jsonb_exists_any",
            |types| path_after_json(types),
            |a| {
                truths(a, |row| {
                    let keys = row.path(1)?;
                    jsonb::exists_any(row.value(0), &borrowed(&keys))
                })
            },
        ),
        truth(
            "jsonb_exists_all",
            |types| path_after_json(types),
            |a| {
                truths(a, |row| {
                    let keys = row.path(1)?;
                    jsonb::exists_all(row.value(0), &borrowed(&keys))
                })
            },
        ),
        Definition {
            name: "jsonb_elements",
            aliases: &[],
            takes: of_json,
            returns: |_| DataType::List(Arc::new(Field::new_list_field(JSONB, true))),
            evaluate: elements,
        },
        Definition {
            name: "jsonb_element_texts",
            aliases: &[],
            takes: of_json,
            returns: |_| DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            evaluate: element_texts,
        },
        Definition {
            name: "jsonb_keys",
            aliases: &[],
            takes: of_json,
            returns: |_| DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            evaluate: keys,
        },
    ]
}

fn path_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(_) => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        _ => DataType::Utf8,
    }
}

fn path_after_json(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [j, p] if is_json(j) && is_path(p) => Some(vec![JSONB, path_type(p)]),
        _ => None,
    }
}

fn changing() -> Vec<Definition> {
    let json = |name, takes, evaluate| Definition {
        name,
        aliases: &[],
        takes,
        returns: |_: &[DataType]| JSONB,
        evaluate,
    };
    let put = |types: &[DataType]| match types {
        [j, p, new] if is_json(j) && is_path(p) && (is_json(new) || is_text(new)) => {
            Some(vec![JSONB, path_type(p), new.clone()])
        }
        [j, p, new, DataType::Boolean]
            if is_json(j) && is_path(p) && (is_json(new) || is_text(new)) =>
        {
            Some(vec![JSONB, path_type(p), new.clone(), DataType::Boolean])
        }
        _ => None,
    };
    vec![
        json(
            "jsonb_concat",
            |types| match types {
                [a, b] if is_json(a) && is_json(b) => Some(vec![JSONB; 2]),
                _ => None,
            },
            |a| values(a, |row| jsonb::concat(row.value(0), row.value(1)).map(Some)),
        ),
        json(
            "jsonb_delete",
            |types| match types {
                [j, DataType::List(f)] if is_json(j) && is_text(f.data_type()) => {
                    path_after_json(types)
                }
                [j, k] if is_json(j) && is_text(k) => Some(vec![JSONB, DataType::Utf8]),
                [j, k] if is_json(j) && is_int(k) => Some(vec![JSONB, DataType::Int64]),
                _ => None,
            },
            |a| {
                values(a, |row| match row.columns[1].data_type() {
                    DataType::Utf8 => jsonb::delete_key(row.value(0), row.text(1)).map(Some),
                    DataType::Int64 => jsonb::delete_index(row.value(0), row.int(1)).map(Some),
                    _ => {
                        let keys = row.path(1)?;
                        jsonb::delete_keys(row.value(0), &borrowed(&keys)).map(Some)
                    }
                })
            },
        ),
        json(
            "jsonb_delete_path",
            |types| path_after_json(types),
            |a| {
                values(a, |row| {
                    let path = row.path(1)?;
                    jsonb::delete_path(row.value(0), &borrowed(&path)).map(Some)
                })
            },
        ),
        json("jsonb_set", put, |a| {
            values(a, |row| {
                let path = row.path(1)?;
                let create = row.columns.len() < 4 || row.truth(3);
                let new = row.json(2)?;
                jsonb::set(row.value(0), &borrowed(&path), Value::new(&new), create).map(Some)
            })
        }),
        json("jsonb_insert", put, |a| {
            values(a, |row| {
                let path = row.path(1)?;
                let after = row.columns.len() == 4 && row.truth(3);
                let new = row.json(2)?;
                jsonb::insert(row.value(0), &borrowed(&path), Value::new(&new), after).map(Some)
            })
        }),
        json(
            "jsonb_strip_nulls",
            |types| match types {
                [j] if is_json(j) => Some(vec![JSONB]),
                _ => None,
            },
            |a| values(a, |row| jsonb::strip_nulls(row.value(0)).map(Some)),
        ),
    ]
}

/// Values as documents; moments in the zone that comes second.
pub(super) fn to_jsonb(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let zone = super::moment::zone_of(args, 1)?;
    values(args, |row| {
        let mut builder = Builder::new();
        put(&mut builder, &row.columns[0], row.row, &zone)?;
        Ok(Some(builder.finish()))
    })
}

fn making() -> Vec<Definition> {
    vec![
        Definition {
            name: "to_jsonb",
            aliases: &["to_json", "array_to_json", "row_to_json"],
            takes: |types| match types {
                [_] => Some(types.to_vec()),
                [_, zone] if is_text(zone) => Some(types.to_vec()),
                _ => None,
            },
            returns: |_| JSONB,
            evaluate: to_jsonb,
        },
        Definition {
            name: "jsonb_build_array",
            aliases: &["json_build_array"],
            takes: |types| Some(types.to_vec()),
            returns: |_| JSONB,
            evaluate: |a| {
                built(a, |columns, row| {
                    let mut builder = Builder::new();
                    builder.begin_array();
                    for column in columns {
                        put(&mut builder, column, row, &Zone::UTC)?;
                    }
                    builder.end_array()?;
                    Ok(builder.finish())
                })
            },
        },
        Definition {
            name: "jsonb_build_object",
            aliases: &["json_build_object"],
            takes: |types| Some(types.to_vec()),
            returns: |_| JSONB,
            evaluate: |a| built(a, object),
        },
    ]
}

fn object(columns: &[ArrayRef], row: usize) -> tidemark_common::Result<Vec<u8>> {
    if columns.len() % 2 == 1 {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER,
            "argument list must have even number of elements",
        )
        .with_hint(
            "The arguments of jsonb_build_object() must consist of alternating keys and values.",
        ));
    }
    let mut builder = Builder::new();
    builder.begin_object();
    for (i, pair) in columns.chunks(2).enumerate() {
        if is_null(&pair[0], row) {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("argument {}: key must not be null", 2 * i + 1),
            ));
        }
        // The name that a `char(n)` gives has its blanks.
        if let Some(texts) = pair[0].as_string_opt::<i64>() {
            builder.key(texts.value(row))?;
        } else if let DataType::Timestamp(TimeUnit::Microsecond, _) = pair[0].data_type() {
            builder.key(&timestamp_text(&pair[0], row, &Zone::UTC))?;
        } else {
            let key = super::cast_array(&pair[0].slice(row, 1), &DataType::Utf8)
                .map_err(|e| Error::internal(e.to_string()))?;
            builder.key(key.as_string::<i32>().value(0))?;
        }
        put(&mut builder, &pair[1], row, &Zone::UTC)?;
    }
    builder.end_object()?;
    Ok(builder.finish())
}

/// The arguments of one row, none of them NULL.
struct Row<'a> {
    columns: &'a [ArrayRef],
    row: usize,
}

impl<'a> Row<'a> {
    fn value(&self, i: usize) -> Value<'a> {
        Value::new(self.columns[i].as_binary_view().value(self.row))
    }

    /// A value that may still be its text.
    fn json(&self, i: usize) -> tidemark_common::Result<Vec<u8>> {
        match self.columns[i].data_type() {
            DataType::Utf8 => jsonb::parse(self.text(i)),
            _ => self.value(i).to_vec(),
        }
    }

    fn text(&self, i: usize) -> &'a str {
        self.columns[i].as_string::<i32>().value(self.row)
    }

    fn int(&self, i: usize) -> i64 {
        self.columns[i].as_primitive::<Int64Type>().value(self.row)
    }

    fn truth(&self, i: usize) -> bool {
        self.columns[i].as_boolean().value(self.row)
    }

    /// A path: an array of texts, its text form (`{a,b}`), or all arguments from the `i`th on.
    fn path(&self, i: usize) -> tidemark_common::Result<Vec<Option<String>>> {
        match self.columns[i].data_type() {
            DataType::List(_) => {
                let list = self.columns[i].as_list::<i32>().value(self.row);
                let texts = list.as_string::<i32>();
                Ok(texts.iter().map(|t| t.map(str::to_string)).collect())
            }
            _ => {
                let mut elements = Vec::new();
                let put = |e: Option<&str>| elements.push(e.map(str::to_string));
                tidemark_values::array::read(self.text(i), put)?;
                Ok(elements)
            }
        }
    }
}

fn borrowed(path: &[Option<String>]) -> Vec<Option<&str>> {
    path.iter().map(Option::as_deref).collect()
}

fn at_key<'a>(row: &Row<'a>) -> tidemark_common::Result<Option<Value<'a>>> {
    match row.columns[1].data_type() {
        DataType::Int64 => row.value(0).index(row.int(1)),
        _ => row.value(0).get(row.text(1)),
    }
}

fn at_path<'a>(row: &Row<'a>) -> tidemark_common::Result<Option<Value<'a>>> {
    let path = match row.columns {
        [_, names] if matches!(names.data_type(), DataType::List(_)) => row.path(1)?,
        [_, names @ ..] => (1..=names.len())
            .map(|i| Some(row.text(i).to_string()))
            .collect(),
        [] => Vec::new(),
    };
    row.value(0).path(&borrowed(&path))
}

fn found<'a>(
    row: &Row<'a>,
    f: fn(&Row<'a>) -> tidemark_common::Result<Option<Value<'a>>>,
) -> tidemark_common::Result<Option<Value<'a>>> {
    f(row)
}

fn columns(args: &ScalarFunctionArgs) -> Result<Vec<ArrayRef>> {
    (0..args.args.len()).map(|i| column(args, i)).collect()
}

/// What `f` makes of each row without NULLs.
fn each<T>(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Row) -> tidemark_common::Result<Option<T>>,
) -> Result<Vec<Option<T>>> {
    let columns = columns(args)?;
    (0..rows(args))
        .map(|row| {
            if columns.iter().any(|c| is_null(c, row)) {
                return Ok(None);
            }
            f(&Row {
                columns: &columns,
                row,
            })
            .map_err(external)
        })
        .collect()
}

fn values(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Row) -> tidemark_common::Result<Bytes>,
) -> Result<ColumnarValue> {
    let values: BinaryViewArray = each(args, f)?.into_iter().collect();
    result(args, Arc::new(values))
}

fn texts(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Row) -> tidemark_common::Result<Option<String>>,
) -> Result<ColumnarValue> {
    let texts: StringArray = each(args, f)?.into_iter().collect();
    result(args, Arc::new(texts))
}

fn truths(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Row) -> tidemark_common::Result<bool>,
) -> Result<ColumnarValue> {
    let truths = each(args, |row| f(row).map(Some))?;
    result(args, Arc::new(BooleanArray::from(truths)))
}

/// What `f` makes of each row, NULLs included.
fn built(
    args: &ScalarFunctionArgs,
    f: impl Fn(&[ArrayRef], usize) -> tidemark_common::Result<Vec<u8>>,
) -> Result<ColumnarValue> {
    let columns = columns(args)?;
    let values = (0..rows(args))
        .map(|row| f(&columns, row).map(Some).map_err(external))
        .collect::<Result<BinaryViewArray>>()?;
    result(args, Arc::new(values))
}

fn elements(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = each(args, |row| {
        let elements = row.value(0).array_elements()?;
        let elements: Vec<Vec<u8>> = elements
            .map(|e| e?.to_vec())
            .collect::<tidemark_common::Result<_>>()?;
        Ok(Some(elements))
    })?;
    let mut builder =
        ListBuilder::new(BinaryViewBuilder::new()).with_field(Field::new_list_field(JSONB, true));
    for list in lists {
        match list {
            Some(list) => {
                list.iter().for_each(|e| builder.values().append_value(e));
                builder.append(true);
            }
            None => builder.append(false),
        }
    }
    result(args, Arc::new(builder.finish()))
}

fn text_lists(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Row) -> tidemark_common::Result<Vec<Option<String>>>,
) -> Result<ColumnarValue> {
    let lists = each(args, |row| f(row).map(Some))?;
    let mut builder = ListBuilder::new(StringBuilder::new())
        .with_field(Field::new_list_field(DataType::Utf8, true));
    for list in lists {
        match list {
            Some(list) => {
                list.into_iter()
                    .for_each(|e| builder.values().append_option(e));
                builder.append(true);
            }
            None => builder.append(false),
        }
    }
    result(args, Arc::new(builder.finish()))
}

fn element_texts(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    text_lists(args, |row| {
        let elements = row.value(0).array_elements()?;
        elements.map(|e| e?.to_text()).collect()
    })
}

fn keys(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    text_lists(args, |row| {
        let keys = row.value(0).object_keys()?;
        keys.map(|k| Ok(Some(k?.to_string()))).collect()
    })
}

/// An array of NULLs alone keeps no bits of them.
fn is_null(column: &ArrayRef, row: usize) -> bool {
    *column.data_type() == DataType::Null || column.is_null(row)
}

/// Adds a value of a column, as `to_jsonb` does in a time zone.
fn put(
    builder: &mut Builder,
    column: &ArrayRef,
    row: usize,
    zone: &Zone,
) -> tidemark_common::Result<()> {
    if is_null(column, row) {
        builder.null();
        return Ok(());
    }
    match column.data_type() {
        DataType::Boolean => {
            builder.bool(column.as_boolean().value(row));
            Ok(())
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let wide = arrow::compute::cast(&column.slice(row, 1), &DataType::Int64)
                .map_err(|e| Error::internal(e.to_string()))?;
            builder.integer(wide.as_primitive::<Int64Type>().value(0));
            Ok(())
        }
        DataType::Float64 => builder.double(column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => builder.real(column.as_primitive::<Float32Type>().value(row)),
        DataType::Decimal128(_, scale) => builder.decimal(
            column.as_primitive::<Decimal128Type>().value(row),
            i32::from(*scale),
        ),
        DataType::LargeBinary => {
            let value = Numeric::decode(column.as_binary::<i64>().value(row))?;
            if value.is_finite() {
                builder.number_text(&value.to_string())
            } else {
                builder.string(&value.to_string())
            }
        }
        DataType::BinaryView => builder.value(Value::new(column.as_binary_view().value(row))),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            builder.string(&timestamp_text(column, row, zone))
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>().value(row);
            builder.begin_array();
            for i in 0..list.len() {
                put(builder, &list, i, zone)?;
            }
            builder.end_array()
        }
        DataType::Map(..) => {
            let maps = column.as_map();
            let entries = maps.value(row);
            let keys = super::cast_array(entries.column(0), &DataType::Utf8)
                .map_err(|e| Error::internal(e.to_string()))?;
            builder.begin_object();
            for i in 0..entries.len() {
                builder.key(keys.as_string::<i32>().value(i))?;
                put(builder, entries.column(1), i, zone)?;
            }
            builder.end_object()
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct();
            builder.begin_object();
            for (field, column) in fields.iter().zip(columns.columns()) {
                builder.key(field.name())?;
                put(builder, column, row, zone)?;
            }
            builder.end_object()
        }
        // A `char(n)` keeps its blanks.
        DataType::LargeUtf8 => builder.string(column.as_string::<i64>().value(row)),
        _ => {
            let text = super::cast_array(&column.slice(row, 1), &DataType::Utf8)
                .map_err(|e| Error::internal(e.to_string()))?;
            builder.string(text.as_string::<i32>().value(0))
        }
    }
}

/// A timestamp in XSD's form, `2024-01-31T10:00:00+01:00`: the offset always has minutes.
fn timestamp_text(column: &ArrayRef, row: usize, zone: &Zone) -> String {
    let at = column.as_primitive::<TimestampMicrosecondType>().value(row);
    let DataType::Timestamp(_, Some(_)) = column.data_type() else {
        return moment::timestamp_text(at).replacen(' ', "T", 1);
    };
    let mut text = moment::timestamptz_text(at, zone);
    // Of an era before Christ, `BC` follows the offset.
    let end = text.len() - if text.ends_with(" BC") { 3 } else { 0 };
    let hours_alone = text[..end].len() > 3 && text[end - 3..].starts_with(['+', '-']);
    if hours_alone && moment::timestamp_is_finite(at) {
        text.insert_str(end, ":00");
    }
    text.replacen(' ', "T", 1)
}

/// A column of texts as JSONB, or of JSONB as another type; `None` where that is nothing of ours.
///
/// Errors: `22P02` for text that is no JSON, `22023` for a value of another kind.
pub(super) fn cast_json(array: &ArrayRef, to: &DataType) -> Result<Option<ArrayRef>> {
    Ok(Some(match (array.data_type(), to) {
        (DataType::Utf8, DataType::BinaryView) => {
            let mut builder = Builder::new();
            let mut values = BinaryViewBuilder::with_capacity(array.len());
            let mut bytes = Vec::new();
            for text in array.as_string::<i32>() {
                let Some(text) = text else {
                    values.append_null();
                    continue;
                };
                bytes.clear();
                builder.clear();
                jsonb::parse_to(&mut builder, text, &mut bytes).map_err(external)?;
                values.append_value(&bytes);
            }
            Arc::new(values.finish())
        }
        (DataType::BinaryView, DataType::Utf8) => {
            let print = |form: &[u8]| {
                let mut text = String::new();
                Value::new(form).print(&mut text).map(|()| text)
            };
            let texts = array
                .as_binary_view()
                .iter()
                .map(|form| form.map(print).transpose().map_err(external))
                .collect::<Result<StringArray>>()?;
            Arc::new(texts)
        }
        (DataType::BinaryView, DataType::Boolean) => {
            let truths = array
                .as_binary_view()
                .iter()
                .map(|form| {
                    form.map(|f| Value::new(f).to_bool().map_err(external))
                        .transpose()
                })
                .collect::<Result<BooleanArray>>()?;
            Arc::new(truths)
        }
        (DataType::BinaryView, to) if to.is_numeric() || *to == DataType::LargeBinary => {
            let name = match to {
                DataType::Int16 => "smallint",
                DataType::Int32 => "integer",
                DataType::Int64 => "bigint",
                DataType::Float32 => "real",
                DataType::Float64 => "double precision",
                _ => "numeric",
            };
            let numbers = array.as_binary_view().iter().map(|form| {
                form.map(|f| {
                    let text = Value::new(f).to_number_text(name)?;
                    Numeric::parse(&text)
                })
                .transpose()
                .map_err(external)
            });
            super::numeric::write(numbers, array.len(), to)?
        }
        (DataType::BinaryView, other) => return plan_err!("jsonb does not become {other}"),
        _ => return Ok(None),
    }))
}

/// The keys of a column of JSONB.
pub(super) fn sort_keys(array: &BinaryViewArray) -> ArrayRef {
    let keys: BinaryArray = array.iter().map(|form| form.map(jsonb::key_of)).collect();
    Arc::new(keys)
}
