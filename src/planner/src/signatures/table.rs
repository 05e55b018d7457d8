//! The signatures of PostgreSQL 15's functions and operators, from `functions.txt` and
//! `operators.txt`: one a line,
//! `name(type, .., [variadic] type) [default n] -> type`, where `default n` says that the last n
//! arguments may be left out. Types are PostgreSQL's short names; `json` is written `jsonb`, and
//! `varchar` `text`, as they are the same to us.

use super::types::{Scalar, Type};
use std::collections::HashMap;
use std::sync::OnceLock;

/// What a function takes and gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Signature {
    pub params: Vec<Type>,
    /// The last parameter stands for any number of arguments.
    pub variadic: bool,
    /// So many of the last parameters may be left out.
    pub optional: usize,
    pub result: Type,
}

impl Signature {
    /// The parameters that stand for `count` arguments; `None` if it takes another number.
    pub(super) fn params_of(&self, count: usize) -> Option<Vec<Type>> {
        let given = self.params.len();
        if !self.variadic {
            let fits = count <= given && count + self.optional >= given;
            return fits.then(|| self.params[..count].to_vec());
        }
        let repeated = *self.params.last()?;
        if count < given {
            return None;
        }
        let repeated = Type {
            array: false,
            ..repeated
        };
        let mut params = self.params[..given - 1].to_vec();
        params.resize(count, repeated);
        Some(params)
    }
}

/// The signatures of a function, by its name in lower case; none of one that is not in the table.
pub(crate) fn signatures(name: &str) -> &'static [Signature] {
    static TABLE: OnceLock<HashMap<&'static str, Vec<Signature>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut table: HashMap<&str, Vec<Signature>> = HashMap::new();
        let lines = include_str!("functions.txt").lines();
        for line in lines.chain(include_str!("operators.txt").lines()) {
            if let Some((name, signature)) = read(line) {
                table.entry(name).or_default().push(signature);
            }
        }
        table
    });
    table.get(name).map_or(&[], Vec::as_slice)
}

/// A line of the table; `None` of a comment.
pub(super) fn read(line: &str) -> Option<(&str, Signature)> {
    let line = if line.starts_with("# ") { "" } else { line };
    let (call, result) = line.split_once(" -> ")?;
    let (name, rest) = call.split_once('(')?;
    let (params, rest) = rest.split_once(')')?;
    let optional = match rest.trim().strip_prefix("default ") {
        Some(count) => count.parse().ok()?,
        None => 0,
    };
    let mut variadic = false;
    let params = params
        .split(", ")
        .filter(|p| !p.is_empty())
        .map(|p| match p.strip_prefix("variadic ") {
            Some(repeated) => {
                variadic = true;
                type_named(repeated)
            }
            None => type_named(p),
        })
        .collect::<Option<_>>()?;
    let result = type_named(result.trim())?;
    Some((
        name,
        Signature {
            params,
            variadic,
            optional,
            result,
        },
    ))
}

fn type_named(name: &str) -> Option<Type> {
    if let Some(item) = name.strip_suffix("[]") {
        let Type { scalar, .. } = type_named(item)?;
        return Some(Type {
            scalar,
            array: true,
        });
    }
    Some(Type::scalar(match name {
        "bool" => Scalar::Bool,
        "int2" => Scalar::Int2,
        "int4" => Scalar::Int4,
        "int8" => Scalar::Int8,
        "float4" => Scalar::Float4,
        "float8" => Scalar::Float8,
        "numeric" => Scalar::Numeric,
        "text" => Scalar::Text,
        "bpchar" => Scalar::Bpchar,
        "bytea" => Scalar::Bytea,
        "date" => Scalar::Date,
        "time" => Scalar::Time,
        "timestamp" => Scalar::Timestamp,
        "timestamptz" => Scalar::Timestamptz,
        "interval" => Scalar::Interval,
        "uuid" => Scalar::Uuid,
        "jsonb" => Scalar::Jsonb,
        "any" => Scalar::Any,
        "anyelement" => Scalar::AnyElement,
        "anyarray" => Scalar::AnyArray,
        "anynonarray" => Scalar::AnyNonArray,
        "anycompatible" => Scalar::AnyCompatible,
        "anycompatiblearray" => Scalar::AnyCompatibleArray,
        _ => return None,
    }))
}
