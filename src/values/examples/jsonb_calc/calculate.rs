//! One operation on textual arguments, for the example and for the test that replays PostgreSQL's
//! answers.

use tidemark_common::error::Result;
use tidemark_values::jsonb::{self, Value};

/// The answer to `op`, `arg`, `arg`, .. as its line shows it, unescaped.
pub fn answer(args: &[&str]) -> String {
    match calculate(args) {
        Ok(Some(text)) => text,
        Ok(None) => "NULL".into(),
        Err(e) => {
            let detail = e.detail().map(|d| format!(" | {d}")).unwrap_or_default();
            format!("error {} {}{detail}", e.state().0, e.message())
        }
    }
}

/// Undoes [`escape`].
pub fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match (c, c == '\\') {
            (c, false) => c,
            _ => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                other => other.unwrap_or('\\'),
            },
        });
    }
    out
}

/// Text as it stands in a line.
pub fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('\t', "\\t")
        .replace('\r', "\\r")
}

fn calculate(args: &[&str]) -> Result<Option<String>> {
    let arg = |i: usize| args.get(i).copied().unwrap_or_default();
    let bytes = |i: usize| jsonb::parse(arg(i));
    let print = |bytes: Vec<u8>| {
        let mut out = String::new();
        Value::new(&bytes).print(&mut out)?;
        Ok(Some(out))
    };
    let show = |value: Option<Value<'_>>| {
        value
            .map(|v| v.to_vec())
            .transpose()?
            .map_or(Ok(None), print)
    };
    let text = |value: Option<Value<'_>>| value.map_or(Ok(None), |v| v.to_text());
    let flag = |value: Result<bool>| Ok(Some(value?.to_string()));
    let integer = |i: usize| arg(i).parse::<i64>().unwrap_or_default();
    let array = |i: usize| -> Result<Vec<Option<String>>> {
        Value::new(&bytes(i)?)
            .elements()?
            .map(|e| Ok(e?.as_str()?.map(str::to_owned)))
            .collect()
    };
    fn refs(array: &[Option<String>]) -> Vec<Option<&str>> {
        array.iter().map(Option::as_deref).collect()
    }

    if arg(0) == "json" {
        return jsonb::validate(arg(1)).map(|()| Some(arg(1).to_owned()));
    }
    if arg(0) == "double" {
        let mut builder = jsonb::Builder::new();
        builder.double(arg(1).parse().unwrap_or_default())?;
        return print(builder.finish());
    }
    if arg(0) == "real" {
        let mut builder = jsonb::Builder::new();
        builder.real(arg(1).parse().unwrap_or_default())?;
        return print(builder.finish());
    }
    if arg(0) == "numeric" {
        let mut builder = jsonb::Builder::new();
        builder.number_text(arg(1))?;
        return print(builder.finish());
    }
    let a = bytes(1)?;
    let a = Value::new(&a);
    match arg(0) {
        "print" => show(Some(a)),
        "pretty" => {
            let mut out = String::new();
            a.pretty(&mut out)?;
            Ok(Some(out))
        }
        "typeof" => Ok(Some(a.kind()?.to_string())),
        "compare" => {
            let order = jsonb::compare(&a.to_vec()?, &bytes(2)?);
            Ok(Some((order as i8).to_string()))
        }
        "get" => show(a.get(arg(2))?),
        "get_text" => text(a.get(arg(2))?),
        "index" => show(a.index(integer(2))?),
        "index_text" => text(a.index(integer(2))?),
        "path" => show(a.path(&refs(&array(2)?))?),
        "path_text" => text(a.path(&refs(&array(2)?))?),
        "exists" => flag(jsonb::exists(a, arg(2))),
        "exists_any" => flag(jsonb::exists_any(a, &refs(&array(2)?))),
        "exists_all" => flag(jsonb::exists_all(a, &refs(&array(2)?))),
        "contains" => flag(jsonb::contains(a, Value::new(&bytes(2)?))),
        "concat" => print(jsonb::concat(a, Value::new(&bytes(2)?))?),
        "delete_key" => print(jsonb::delete_key(a, arg(2))?),
        "delete_keys" => print(jsonb::delete_keys(a, &refs(&array(2)?))?),
        "delete_index" => print(jsonb::delete_index(a, integer(2))?),
        "delete_path" => print(jsonb::delete_path(a, &refs(&array(2)?))?),
        "set" => {
            let new = bytes(3)?;
            print(jsonb::set(
                a,
                &refs(&array(2)?),
                Value::new(&new),
                arg(4) == "true",
            )?)
        }
        "insert" => {
            let new = bytes(3)?;
            print(jsonb::insert(
                a,
                &refs(&array(2)?),
                Value::new(&new),
                arg(4) == "true",
            )?)
        }
        "strip_nulls" => print(jsonb::strip_nulls(a)?),
        "array_length" => Ok(Some(a.array_length()?.to_string())),
        "elements" => {
            let texts = a
                .array_elements()?
                .map(|e| Ok(e?.to_string()))
                .collect::<Result<Vec<_>>>();
            Ok(Some(texts?.join(" ; ")))
        }
        "each_text" => {
            let pair = |pair: Result<(&str, Value<'_>)>| {
                let (key, value) = pair?;
                Ok(format!(
                    "{key}={}",
                    value.to_text()?.unwrap_or_else(|| "NULL".into())
                ))
            };
            let texts = a
                .each("jsonb_each_text")?
                .map(pair)
                .collect::<Result<Vec<_>>>()?;
            Ok(Some(texts.join(" ; ")))
        }
        "keys" => Ok(Some(
            a.object_keys()?.collect::<Result<Vec<_>>>()?.join(" ; "),
        )),
        "bool" => flag(a.to_bool()),
        "number" => a.to_number_text("numeric").map(Some),
        "build" => {
            let mut builder = jsonb::Builder::new();
            let b = bytes(2)?;
            builder.begin_object();
            builder.key("b")?;
            builder.value(Value::new(&b))?;
            builder.key("list")?;
            builder.begin_array();
            builder.value(a)?;
            builder.value(Value::new(&b))?;
            builder.end_array()?;
            builder.key("a")?;
            builder.value(a)?;
            builder.end_object()?;
            print(builder.finish())
        }
        other => Ok(Some(format!("no operation {other}"))),
    }
}
