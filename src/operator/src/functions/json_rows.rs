//! JSONB and lists: the keys and values that `jsonb_each` unnests, and `jsonb_object` of texts.

use super::definition::*;
use super::json::JSONB;
use arrow::array::*;
use arrow::datatypes::{DataType, Field};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_values::jsonb::{Builder, Value};

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let list = |name, element: fn(&[DataType]) -> DataType, evaluate| Definition {
        name,
        aliases: &[],
        takes: |types| match types {
            [DataType::BinaryView | DataType::Null] => Some(vec![JSONB]),
            _ => None,
        },
        returns: element,
        evaluate,
    };
    let texts: fn(&[DataType]) -> DataType = |_| list_of(DataType::Utf8);
    let values: fn(&[DataType]) -> DataType = |_| list_of(JSONB);
    vec![
        list("jsonb_each_keys", texts, |a| keys(a, "jsonb_each")),
        list("jsonb_each_values", values, each_values),
        list("jsonb_each_text_keys", texts, |a| {
            keys(a, "jsonb_each_text")
        }),
        list("jsonb_each_text_values", texts, each_texts),
        Definition {
            name: "jsonb_object",
            aliases: &[],
            takes: |types| {
                let is_texts = |t: &DataType| match t {
                    DataType::List(field) => is_text(field.data_type()),
                    t => is_text(t),
                };
                let fits = matches!(types.len(), 1 | 2) && types.iter().all(is_texts);
                fits.then(|| vec![list_of(DataType::Utf8); types.len()])
            },
            returns: |_| JSONB,
            evaluate: object,
        },
    ]
}

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

/// The keys of objects, in order. Error 22023, with the function's name, for what is none.
fn keys(args: &ScalarFunctionArgs, function: &str) -> Result<ColumnarValue> {
    let forms = column(args, 0)?;
    let mut lists = ListBuilder::new(StringBuilder::new());
    for form in forms.as_binary_view() {
        if let Some(form) = form {
            for pair in Value::new(form).each(function).map_err(external)? {
                lists.values().append_value(pair.map_err(external)?.0);
            }
        }
        lists.append(form.is_some());
    }
    result(args, Arc::new(lists.finish()))
}

fn each_values(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let forms = column(args, 0)?;
    let mut lists = ListBuilder::new(BinaryViewBuilder::new());
    let mut bytes = Vec::new();
    for form in forms.as_binary_view() {
        if let Some(form) = form {
            for pair in Value::new(form).each("jsonb_each").map_err(external)? {
                let (_, value) = pair.map_err(external)?;
                bytes.clear();
                value.write_to(&mut bytes).map_err(external)?;
                lists.values().append_value(&bytes);
            }
        }
        lists.append(form.is_some());
    }
    result(args, Arc::new(lists.finish()))
}

fn each_texts(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let forms = column(args, 0)?;
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut text = String::new();
    for form in forms.as_binary_view() {
        if let Some(form) = form {
            for pair in Value::new(form).each("jsonb_each_text").map_err(external)? {
                let (_, value) = pair.map_err(external)?;
                text.clear();
                let shown = value.text_to(&mut text).map_err(external)?;
                lists.values().append_option(shown.then_some(&text));
            }
        }
        lists.append(form.is_some());
    }
    result(args, Arc::new(lists.finish()))
}

/// `jsonb_object('{key,value,..}')` and `jsonb_object('{key,..}', '{value,..}')`.
fn object(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let keys = column(args, 0)?;
    let values = match args.args.len() {
        2.. => Some(column(args, 1)?),
        _ => None,
    };
    let mut builder = Builder::new();
    let mut objects = BinaryViewBuilder::with_capacity(keys.len());
    for row in 0..keys.len() {
        if keys.is_null(row) || values.as_ref().is_some_and(|v| v.is_null(row)) {
            objects.append_null();
            continue;
        }
        let keys = keys.as_list::<i32>().value(row);
        let values = values.as_ref().map(|v| v.as_list::<i32>().value(row));
        builder.clear();
        put_object(
            &mut builder,
            keys.as_string(),
            values.as_ref().map(|v| v.as_string()),
        )
        .map_err(external)?;
        objects.append_value(builder.finish());
    }
    result(args, Arc::new(objects.finish()))
}

fn put_object(
    builder: &mut Builder,
    keys: &StringArray,
    values: Option<&StringArray>,
) -> tidemark_common::Result<()> {
    let wrong = |message| Error::user(SqlState("2202E"), message);
    builder.begin_object();
    let step = match values {
        None if keys.len() % 2 == 1 => {
            return Err(wrong("array must have even number of elements"));
        }
        None => 2,
        Some(values) if values.len() != keys.len() => {
            return Err(wrong("mismatched array dimensions"));
        }
        Some(_) => 1,
    };
    for i in (0..keys.len()).step_by(step) {
        if keys.is_null(i) {
            return Err(Error::user(
                SqlState("22004"),
                "null value not allowed for object key",
            ));
        }
        builder.key(keys.value(i))?;
        let (column, at) = values.map_or((keys, i + 1), |values| (values, i));
        if column.is_null(at) {
            builder.null();
        } else {
            builder.string(column.value(at))?;
        }
    }
    builder.end_object()
}
