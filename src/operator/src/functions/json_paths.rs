//! SQL/JSON paths over columns of JSONB ([`tidemark_values::jsonpath`]). A path is text to Arrow;
//! each is read once per thread, not once per row or batch.

use super::bounded::check_size;
use super::definition::*;
use super::json::JSONB;
use arrow::array::*;
use arrow::datatypes::{DataType, Field};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use hashbrown::HashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tidemark_values::jsonb::{self, Value};
use tidemark_values::jsonpath::{Asked, Path};

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let truths = |name, evaluate| Definition {
        name,
        aliases: &[],
        takes: taken,
        returns: |_: &[DataType]| DataType::Boolean,
        evaluate,
    };
    let values = |name, evaluate| Definition {
        name,
        aliases: &[],
        takes: taken,
        returns: |_: &[DataType]| JSONB,
        evaluate,
    };
    vec![
        truths("jsonb_path_exists", |a| {
            truths_of(a, Asking::Function, Path::exists)
        }),
        truths("jsonb_path_match", |a| {
            truths_of(a, Asking::Function, Path::matches)
        }),
        // `@?` and `@@`.
        truths("jsonb_path_exists_opr", |a| {
            truths_of(a, Asking::Operator, Path::exists)
        }),
        truths("jsonb_path_match_opr", |a| {
            truths_of(a, Asking::Operator, Path::matches)
        }),
        values("jsonb_path_query_array", |a| {
            values_of(a, |path, asked| path.query_array(asked).map(Some))
        }),
        values("jsonb_path_query_first", |a| {
            values_of(a, Path::query_first)
        }),
        // The rows of jsonb_path_query, which the planner unnests.
        Definition {
            name: "jsonb_path_rows",
            aliases: &[],
            takes: taken,
            returns: |_| DataType::List(Arc::new(Field::new_list_field(JSONB, true))),
            evaluate: lists,
        },
        // The type `jsonpath`: a text in the form that the type prints.
        Definition {
            name: "jsonpath",
            aliases: &[],
            takes: |types| match types {
                [text] if is_text(text) => Some(vec![DataType::Utf8]),
                _ => None,
            },
            returns: |_| DataType::Utf8,
            evaluate: printed,
        },
    ]
}

/// The value, the path, and as a statement says the variables and whether errors are silent.
fn taken(types: &[DataType]) -> Option<Vec<DataType>> {
    let fits = |i: usize, is: &dyn Fn(&DataType) -> bool| types.get(i).is_none_or(is);
    let json = |t: &DataType| matches!(t, DataType::BinaryView | DataType::Null);
    let truth = |t: &DataType| matches!(t, DataType::Boolean | DataType::Null);
    let all = fits(0, &json) && fits(1, &is_text) && fits(2, &json) && fits(3, &truth);
    let to = [JSONB, DataType::Utf8, JSONB, DataType::Boolean];
    let count = (2..=4).contains(&types.len());
    (all && count).then(|| to[..types.len()].to_vec())
}

/// Paths that a thread remembers.
const READ_MAX: usize = 64;

thread_local! {
    static READ: RefCell<HashMap<String, Rc<Path>>> = RefCell::default();
}

fn read(text: &str) -> tidemark_common::Result<Rc<Path>> {
    READ.with_borrow_mut(|known| {
        if let Some(path) = known.get(text) {
            return Ok(path.clone());
        }
        let path = Rc::new(Path::parse(text)?);
        if known.len() >= READ_MAX {
            known.clear();
        }
        known.insert(text.to_string(), path.clone());
        Ok(path)
    })
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// Has variables, none of them unless it is said, and reports errors unless it is said.
    Function,
    /// Has no variables, and no errors of the document.
    Operator,
}

/// Calls `put` with each row's path and what it is asked with; `None` where an argument is NULL.
fn each_row(
    args: &ScalarFunctionArgs,
    asking: Asking,
    mut put: impl FnMut(Option<(&Path, Asked<'_>)>) -> tidemark_common::Result<()>,
) -> Result<()> {
    let columns = (0..args.args.len())
        .map(|i| column(args, i))
        .collect::<Result<Vec<_>>>()?;
    let (documents, paths) = (columns[0].as_binary_view(), columns[1].as_string::<i32>());
    let variables = columns.get(2).map(|c| c.as_binary_view());
    let silents = columns.get(3).map(|c| c.as_boolean());
    let none = jsonb::parse("{}").map_err(external)?;
    let none = (asking == Asking::Function).then(|| Value::new(&none));
    let mut last: Option<(&str, Rc<Path>)> = None;
    for row in 0..rows(args) {
        if columns.iter().any(|c| c.is_null(row)) {
            put(None).map_err(external)?;
            continue;
        }
        let text = paths.value(row);
        let path = match &last {
            Some((known, path)) if *known == text => path.clone(),
            _ => read(text).map_err(external)?,
        };
        let asked = Asked {
            document: Value::new(documents.value(row)),
            variables: variables.map_or(none, |v| Some(Value::new(v.value(row)))),
            silent: silents.map_or(asking == Asking::Operator, |s| s.value(row)),
        };
        put(Some((path.as_ref(), asked))).map_err(external)?;
        last = Some((text, path));
    }
    Ok(())
}

fn truths_of(
    args: &ScalarFunctionArgs,
    asking: Asking,
    ask: fn(&Path, Asked<'_>) -> tidemark_common::Result<Option<bool>>,
) -> Result<ColumnarValue> {
    let mut truths = BooleanBuilder::new();
    each_row(args, asking, |row| {
        truths.append_option(match row {
            Some((path, asked)) => ask(path, asked)?,
            None => None,
        });
        Ok(())
    })?;
    result(args, Arc::new(truths.finish()))
}

fn values_of(
    args: &ScalarFunctionArgs,
    ask: fn(&Path, Asked<'_>) -> tidemark_common::Result<Option<Vec<u8>>>,
) -> Result<ColumnarValue> {
    let mut values = BinaryViewBuilder::new();
    let mut bytes = 0;
    each_row(args, Asking::Function, |row| {
        let found = match row {
            Some((path, asked)) => ask(path, asked)?,
            None => None,
        };
        bytes += found.as_ref().map_or(0, |v| v.len() as u64);
        check_size(bytes)?;
        values.append_option(found);
        Ok(())
    })?;
    result(args, Arc::new(values.finish()))
}

fn lists(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let mut lists =
        ListBuilder::new(BinaryViewBuilder::new()).with_field(Field::new_list_field(JSONB, true));
    let mut bytes = 0;
    each_row(args, Asking::Function, |row| {
        if let Some((path, asked)) = row {
            path.query(asked, |value| {
                bytes += value.len() as u64;
                check_size(bytes)?;
                lists.values().append_value(value);
                Ok(())
            })?;
        }
        lists.append(row.is_some());
        Ok(())
    })?;
    result(args, Arc::new(lists.finish()))
}

fn printed(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let texts = column(args, 0)?;
    let print = |text: &str| Ok(read(text)?.to_string());
    let texts = texts.as_string::<i32>().iter();
    let texts = texts
        .map(|text| text.map(print).transpose().map_err(external))
        .collect::<Result<StringArray>>()?;
    result(args, Arc::new(texts))
}
