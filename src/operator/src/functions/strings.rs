//! PostgreSQL's functions of texts, on [`tidemark_values::text`]. What takes a value of any type
//! takes its text.

use super::arguments::{Byteas, Takes, Texts, Values, byteas, taken, texts, values};
use super::bounded::{check_bytes, check_size};
use super::definition::*;
use super::{bytea, regex};
use arrow::array::BooleanArray;
use arrow::datatypes::{DataType, Int32Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_values::letters;
use tidemark_values::text::normal::Form;
use tidemark_values::text::{self, Arguments};

use Takes::{Bytea, Int4, Text};

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let mut all = of_any_type();
    all.extend(of_texts());
    all.extend(parts());
    all
}

fn to_text(
    name: &'static str,
    takes: fn(&[DataType]) -> Option<Vec<DataType>>,
    evaluate: fn(&ScalarFunctionArgs) -> Result<ColumnarValue>,
) -> Definition {
    Definition {
        name,
        aliases: &[],
        takes,
        returns: |_| DataType::Utf8,
        evaluate,
    }
}

fn any(types: &[DataType]) -> Option<Vec<DataType>> {
    (!types.is_empty()).then(|| types.to_vec())
}

fn of_any_type() -> Vec<Definition> {
    vec![
        to_text("concat", any, concat),
        to_text("concat_ws", any, concat_ws),
        to_text("format", any, format),
        to_text(
            "quote_literal",
            |t| any(t).filter(|t| t.len() == 1),
            |a| quote(a, None),
        ),
        to_text(
            "quote_nullable",
            |t| any(t).filter(|t| t.len() == 1),
            |a| quote(a, Some("NULL")),
        ),
        Definition {
            returns: |_| DataType::Int32,
            ..to_text("num_nulls", any, |a| nulls(a, true))
        },
        Definition {
            returns: |_| DataType::Int32,
            ..to_text("num_nonnulls", any, |a| nulls(a, false))
        },
    ]
}

fn of_texts() -> Vec<Definition> {
    vec![
        to_text(
            "quote_ident",
            |t| taken(t, 1, &[Text]),
            |a| {
                one(a, |text, out| {
                    text::quote_ident(text, out);
                    Ok(())
                })
            },
        ),
        to_text(
            "initcap",
            |t| taken(t, 1, &[Text]),
            |a| {
                one(a, |text, out| {
                    text::initcap(text, out);
                    Ok(())
                })
            },
        ),
        to_text(
            "lower",
            |t| taken(t, 1, &[Text]),
            |a| {
                one(a, |text, out| {
                    out.extend(text.chars().map(letters::lower));
                    Ok(())
                })
            },
        ),
        to_text(
            "upper",
            |t| taken(t, 1, &[Text]),
            |a| {
                one(a, |text, out| {
                    out.extend(text.chars().map(letters::upper));
                    Ok(())
                })
            },
        ),
        to_text("unistr", |t| taken(t, 1, &[Text]), |a| one(a, text::unistr)),
        to_text("translate", |t| taken(t, 3, &[Text, Text, Text]), translate),
        to_text(
            "split_part",
            |t| taken(t, 3, &[Text, Text, Int4]),
            split_part,
        ),
        Definition {
            returns: |types| types[0].clone(),
            ..to_text(
                "like_escape",
                |t| taken(t, 2, &[Text, Text]).or_else(|| taken(t, 2, &[Bytea, Bytea])),
                like_escape,
            )
        },
        to_text("normalize", |t| taken(t, 1, &[Text, Text]), normalize),
        Definition {
            returns: |_| DataType::Boolean,
            ..to_text(
                "is_normalized",
                |t| taken(t, 1, &[Text, Text]),
                is_normalized,
            )
        },
        to_text("chr", |t| taken(t, 1, &[Int4]), chr),
        Definition {
            returns: |_| DataType::Int32,
            ..to_text("ascii", |t| taken(t, 1, &[Text]), ascii)
        },
    ]
}

fn parts() -> Vec<Definition> {
    let substr = |types: &[DataType]| {
        taken(types, 2, &[Text, Int4, Int4]).or_else(|| taken(types, 2, &[Bytea, Int4, Int4]))
    };
    let like_first = |types: &[DataType]| types[0].clone();
    vec![
        to_text(
            "left",
            |t| taken(t, 2, &[Text, Int4]),
            |a| cut(a, text::left),
        ),
        to_text(
            "right",
            |t| taken(t, 2, &[Text, Int4]),
            |a| cut(a, text::right),
        ),
        to_text(
            "lpad",
            |t| taken(t, 2, &[Text, Int4, Text]),
            |a| pad(a, true),
        ),
        to_text(
            "rpad",
            |t| taken(t, 2, &[Text, Int4, Text]),
            |a| pad(a, false),
        ),
        Definition {
            returns: like_first,
            ..to_text("substr", substr, substring)
        },
        Definition {
            name: "substring",
            aliases: &[],
            takes: |types| {
                let by_pattern = types
                    .get(1)
                    .is_some_and(|t| is_text(t) && *t != DataType::Null);
                if by_pattern {
                    return taken(types, 2, &[Text, Text, Text]);
                }
                taken(types, 2, &[Text, Int4, Int4])
                    .or_else(|| taken(types, 2, &[Bytea, Int4, Int4]))
            },
            returns: like_first,
            evaluate: substring,
        },
        Definition {
            name: "overlay",
            aliases: &[],
            takes: |types| {
                taken(types, 3, &[Text, Text, Int4, Int4])
                    .or_else(|| taken(types, 3, &[Bytea, Bytea, Int4, Int4]))
            },
            returns: like_first,
            evaluate: overlay,
        },
    ]
}

/// A text of a text.
fn one(
    args: &ScalarFunctionArgs,
    f: impl Fn(&str, &mut String) -> tidemark_common::Result<()>,
) -> Result<ColumnarValue> {
    let given = Texts::of(args, 0)?;
    texts(args, |row, out| match given.get(row) {
        Some(text) => f(text, out).map(|()| true).map_err(external),
        None => Ok(false),
    })
}

/// The texts of all arguments from `first` on.
fn all_texts(args: &ScalarFunctionArgs, first: usize) -> Result<Vec<Texts>> {
    (first..args.args.len())
        .map(|i| Texts::of_any(args, i, true))
        .collect()
}

/// `concat(value, ..)`: NULL is nothing.
fn concat(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let parts = all_texts(args, 0)?;
    texts(args, |row, out| {
        let given = || parts.iter().filter_map(|p| p.get(row));
        check_bytes(given().map(|t| t.len() as u64).sum())?;
        given().for_each(|t| out.push_str(t));
        Ok(true)
    })
}

/// `concat_ws(separator, value, ..)`: NULL is left out.
fn concat_ws(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let separators = Texts::of_any(args, 0, true)?;
    let parts = all_texts(args, 1)?;
    texts(args, |row, out| {
        let Some(separator) = separators.get(row) else {
            return Ok(false);
        };
        let given = || parts.iter().filter_map(|p| p.get(row));
        check_bytes(given().map(|t| (t.len() + separator.len()) as u64).sum())?;
        for (i, part) in given().enumerate() {
            if i > 0 {
                out.push_str(separator);
            }
            out.push_str(part);
        }
        Ok(true)
    })
}

/// A row of the arguments of `format`.
struct Row<'a>(&'a [Texts], usize);

impl Arguments for Row<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn text(&self, i: usize) -> Option<&str> {
        self.0[i].get(self.1)
    }
    fn check(&self, bytes: usize) -> tidemark_common::Result<()> {
        check_size(bytes as u64)
    }
}

fn format(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let formats = Texts::of_any(args, 0, true)?;
    let parts = all_texts(args, 1)?;
    texts(args, |row, out| match formats.get(row) {
        None => Ok(false),
        Some(format) => text::format(format, &Row(&parts, row), out)
            .map(|()| true)
            .map_err(external),
    })
}

fn quote(args: &ScalarFunctionArgs, null: Option<&str>) -> Result<ColumnarValue> {
    let given = Texts::of_any(args, 0, false)?;
    texts(args, |row, out| {
        match (given.get(row), null) {
            (Some(text), _) => text::quote_literal(text, out),
            (None, Some(null)) => out.push_str(null),
            (None, None) => return Ok(false),
        }
        Ok(true)
    })
}

/// How many arguments are NULL, or are not.
fn nulls(args: &ScalarFunctionArgs, counted: bool) -> Result<ColumnarValue> {
    let columns = (0..args.args.len())
        .map(|i| Ok(column(args, i)?.logical_nulls()))
        .collect::<Result<Vec<_>>>()?;
    values::<Int32Type>(args, |row| {
        let is_null = |nulls: &Option<arrow::buffer::NullBuffer>| {
            nulls.as_ref().is_some_and(|n| n.is_null(row))
        };
        Ok(Some(
            columns.iter().filter(|c| is_null(c) == counted).count() as i32,
        ))
    })
}

fn normalize(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, forms) = (Texts::of(args, 0)?, Texts::optional(args, 1)?);
    texts(args, |row, out| {
        let form = forms.as_ref().map_or(Some("NFC"), |f| f.get(row));
        let Some((text, form)) = given.get(row).zip(form) else {
            return Ok(false);
        };
        Form::named(form).map_err(external)?.write(text, out);
        Ok(true)
    })
}

fn is_normalized(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, forms) = (Texts::of(args, 0)?, Texts::optional(args, 1)?);
    let found = (0..rows(args)).map(|row| {
        let form = forms.as_ref().map_or(Some("NFC"), |f| f.get(row));
        let Some((text, form)) = given.get(row).zip(form) else {
            return Ok(None);
        };
        Ok(Some(Form::named(form).map_err(external)?.holds(text)))
    });
    result(args, Arc::new(found.collect::<Result<BooleanArray>>()?))
}

fn like_escape(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if args.args[0].data_type() == DataType::Binary {
        let (patterns, escapes) = (Byteas::of(args, 0)?, Byteas::of(args, 1)?);
        return byteas(args, |row, out| {
            let Some((pattern, escape)) = patterns.get(row).zip(escapes.get(row)) else {
                return Ok(false);
            };
            tidemark_values::bytea::like_escape(pattern, escape, out).map_err(external)?;
            Ok(true)
        });
    }
    let (patterns, escapes) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    texts(args, |row, out| {
        let Some((pattern, escape)) = patterns.get(row).zip(escapes.get(row)) else {
            return Ok(false);
        };
        text::like_escape(pattern, escape, out).map_err(external)?;
        Ok(true)
    })
}

fn translate(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, from, to) = (
        Texts::of(args, 0)?,
        Texts::of(args, 1)?,
        Texts::of(args, 2)?,
    );
    texts(args, |row, out| {
        let (Some(text), Some(from), Some(to)) = (given.get(row), from.get(row), to.get(row))
        else {
            return Ok(false);
        };
        text::translate(text, from, to, out);
        Ok(true)
    })
}

fn split_part(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (given, separators) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    let numbers = Values::<Int32Type>::of(args, 2)?;
    texts(args, |row, out| {
        let (Some(text), Some(separator), Some(n)) =
            (given.get(row), separators.get(row), numbers.get(row))
        else {
            return Ok(false);
        };
        out.push_str(text::split_part(text, separator, n).map_err(external)?);
        Ok(true)
    })
}

fn chr(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let codes = Values::<Int32Type>::of(args, 0)?;
    texts(args, |row, out| match codes.get(row) {
        None => Ok(false),
        Some(code) => {
            out.push(text::chr(code).map_err(external)?);
            Ok(true)
        }
    })
}

fn ascii(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let given = Texts::of(args, 0)?;
    values::<Int32Type>(args, |row| {
        Ok(given
            .get(row)
            .map(|t| t.chars().next().map_or(0, |c| c as i32)))
    })
}

fn cut(args: &ScalarFunctionArgs, f: fn(&str, i32) -> &str) -> Result<ColumnarValue> {
    let given = Texts::of(args, 0)?;
    let numbers = Values::<Int32Type>::of(args, 1)?;
    texts(args, |row, out| {
        match given.get(row).zip(numbers.get(row)) {
            None => Ok(false),
            Some((text, n)) => {
                out.push_str(f(text, n));
                Ok(true)
            }
        }
    })
}

fn pad(args: &ScalarFunctionArgs, before: bool) -> Result<ColumnarValue> {
    let given = Texts::of(args, 0)?;
    let lengths = Values::<Int32Type>::of(args, 1)?;
    let fills = Texts::optional(args, 2)?;
    texts(args, |row, out| {
        let fill = fills.as_ref().map_or(Some(" "), |f| f.get(row));
        let (Some(text), Some(length), Some(fill)) = (given.get(row), lengths.get(row), fill)
        else {
            return Ok(false);
        };
        let check = |bytes: usize| check_size(bytes as u64);
        text::pad(text, length, fill, before, check, out).map_err(external)?;
        Ok(true)
    })
}

/// `substring` of texts and bytes by numbers, of texts by patterns.
fn substring(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let types = (args.args[0].data_type(), args.args[1].data_type());
    match types {
        (_, DataType::Utf8) if args.args.len() == 2 => return regex::substring(args),
        (_, DataType::Utf8) => return regex::substring_similar(args),
        (DataType::Binary, _) => return bytea::substring(args),
        _ => {}
    }
    let given = Texts::of(args, 0)?;
    let starts = Values::<Int32Type>::of(args, 1)?;
    let lengths = Values::<Int32Type>::optional(args, 2)?;
    texts(args, |row, out| {
        let length = lengths.as_ref().map(|l| l.get(row));
        let (Some(text), Some(start), false) =
            (given.get(row), starts.get(row), length == Some(None))
        else {
            return Ok(false);
        };
        out.push_str(text::substring(text, start, length.flatten()).map_err(external)?);
        Ok(true)
    })
}

fn overlay(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if args.args[0].data_type() == DataType::Binary {
        return bytea::overlay(args);
    }
    let (given, new) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    let starts = Values::<Int32Type>::of(args, 2)?;
    let lengths = Values::<Int32Type>::optional(args, 3)?;
    texts(args, |row, out| {
        let length = lengths.as_ref().map(|l| l.get(row));
        let (Some(text), Some(new), Some(start), false) = (
            given.get(row),
            new.get(row),
            starts.get(row),
            length == Some(None),
        ) else {
            return Ok(false);
        };
        text::overlay(text, new, start, length.flatten(), out).map_err(external)?;
        Ok(true)
    })
}
