//! A signature beside the arguments of a call: whether it takes them, and as what.

use super::table::Signature;
use super::types::{Arg, Scalar, Type, list_of, type_text};
use crate::error::external;
use crate::types::{NUMERIC, united};
use arrow_schema::DataType;
use datafusion_common::DataFusionError;
use tidemark_common::{Error, SqlState};

/// A call that has been resolved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// The types that its arguments are brought to.
    pub args: Vec<DataType>,
    /// The type of its result.
    pub result: DataType,
}

/// Whether a parameter takes an argument, other arguments aside.
fn takes(param: Type, arg: &Arg) -> bool {
    match param.scalar {
        Scalar::Any | Scalar::AnyElement | Scalar::AnyCompatible if !param.array => true,
        Scalar::AnyArray | Scalar::AnyCompatibleArray => arg.type_.array || arg.is_unknown(),
        Scalar::AnyNonArray => !arg.type_.array,
        _ => arg.type_.stands_for(param),
    }
}

/// The call, if the signature takes its arguments: each by itself, and polymorphic ones together.
///
/// `Err` is for a call whose types nothing tells: all that is polymorphic is untyped.
pub(super) fn bind(signature: &Signature, args: &[Arg]) -> Option<Result<Call, ()>> {
    let params = signature.params_of(args.len())?;
    if !params.iter().zip(args).all(|(p, a)| takes(*p, a)) {
        return None;
    }
    let element = alike(&params, args)?;
    let common = compatible(&params, args)?;
    let of = |type_: Type| match type_.scalar {
        Scalar::AnyElement | Scalar::AnyNonArray => element.clone(),
        Scalar::AnyArray => element.clone().map(list_of),
        Scalar::AnyCompatible => Some(common.clone()),
        Scalar::AnyCompatibleArray => Some(list_of(common.clone())),
        _ => type_.arrow(),
    };
    let mut targets = Vec::with_capacity(args.len());
    for (param, arg) in params.iter().zip(args) {
        targets.push(if param.scalar == Scalar::Any || arg.type_ == *param {
            arg.data_type.clone()
        } else {
            match of(*param) {
                Some(target) => target,
                None => return Some(Err(())),
            }
        });
    }
    Some(of(signature.result).ok_or(()).map(|result| Call {
        args: targets,
        result,
    }))
}

/// The type of all `anyelement`s, and of the elements of `anyarray`s; `None` if they are not of one
/// type, `Some(None)` if nothing tells it.
fn alike(params: &[Type], args: &[Arg]) -> Option<Option<DataType>> {
    let mut found: Option<DataType> = None;
    for (param, arg) in params.iter().zip(args) {
        let element = match param.scalar {
            Scalar::AnyElement | Scalar::AnyNonArray => arg.data_type.clone(),
            Scalar::AnyArray => item_of(&arg.data_type),
            _ => continue,
        };
        if arg.is_unknown() {
            continue;
        }
        found = Some(match found {
            None => element,
            Some(before) if before == element => element,
            Some(before) if Type::of(&before) == Type::of(&element) => plain(before),
            Some(_) => return None,
        });
    }
    let rounded = |by: &DataType| {
        let mut polymorphic = params
            .iter()
            .zip(args)
            .filter(|(p, _)| matches!(p.scalar, Scalar::AnyElement | Scalar::AnyNonArray));
        polymorphic.any(|(_, arg)| arg.is_rounded_by(by))
    };
    Some(found.map(|t| if rounded(&t) { plain(t) } else { t }))
}

/// The type that all `anycompatible`s come to: text, if all are untyped; `None` if there is none.
fn compatible(params: &[Type], args: &[Arg]) -> Option<DataType> {
    let mut meeting: Vec<Arg> = Vec::new();
    for (param, arg) in params.iter().zip(args) {
        match param.scalar {
            Scalar::AnyCompatible => meeting.push(arg.clone()),
            Scalar::AnyCompatibleArray if !arg.is_unknown() => {
                meeting.push(Arg::new(&item_of(&arg.data_type), None));
            }
            _ => {}
        }
    }
    common_of(&meeting)
}

/// The type that values come to, as in CASE, UNION and VALUES: what has a type decides, quoted
/// constants follow, each with all of its digits. `None` if there is none; text, if nothing has a
/// type.
pub(crate) fn common_of(args: &[Arg]) -> Option<DataType> {
    let known = args.iter().filter(|a| !a.is_unknown());
    let known: Vec<DataType> = known.map(|a| a.data_type.clone()).collect();
    let common = common_type(&known)?;
    Some(match args.iter().any(|a| a.is_rounded_by(&common)) {
        true => plain(common),
        false => common,
    })
}

/// The type that values of several types come to, as in CASE, UNION and VALUES; `None` if there is
/// none. Text, if there are no types.
pub(crate) fn common_type(types: &[DataType]) -> Option<DataType> {
    let Some((first, rest)) = types.split_first() else {
        return Some(DataType::Utf8);
    };
    if types
        .iter()
        .all(|t| Type::of(t) == Type::scalar(Scalar::Numeric))
    {
        return Some(fixed(types));
    }
    let mut common = first.clone();
    for next in rest {
        let (a, b) = (Type::of(&common), Type::of(next));
        if *next == common {
            continue;
        }
        if a == b && a.scalar == Scalar::Other {
            common = united(&common, next)?;
        } else if a == b {
            common = plain(common);
        } else if a.category() != b.category() {
            return None;
        } else if !a.is_preferred() && a.stands_for(b) && !b.stands_for(a) {
            common = plain(next.clone());
        }
    }
    let all = types
        .iter()
        .all(|t| Type::of(t).stands_for(Type::of(&common)));
    all.then(|| {
        if rest.iter().any(|t| *t != common) || *first != common {
            plain(common)
        } else {
            common
        }
    })
}

/// `COALESCE types integer and text cannot be matched`: for values that have no common type.
pub(crate) fn unmatched(name: &str, args: &[Arg]) -> DataFusionError {
    let known: Vec<&Arg> = args.iter().filter(|a| !a.is_unknown()).collect();
    let types: Vec<DataType> = known.iter().map(|a| a.data_type.clone()).collect();
    let other = (1..known.len()).find(|i| common_type(&types[..=*i]).is_none());
    let other = other.unwrap_or(known.len().saturating_sub(1));
    let before = match known.first() {
        Some(only) if other <= 1 => type_text(only),
        _ => Type::of(&common_type(&types[..other]).unwrap_or(DataType::Utf8)).to_string(),
    };
    let other = known.get(other).map_or("unknown".into(), |a| type_text(a));
    external(Error::user(
        SqlState::DATATYPE_MISMATCH,
        format!("{name} types {before} and {other} cannot be matched"),
    ))
}

/// What numerics come to: one scale, if all have it, with the most digits before the point.
fn fixed(types: &[DataType]) -> DataType {
    let scaled = |t: &DataType| match t {
        DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
        _ => None,
    };
    let Some(all) = types.iter().map(scaled).collect::<Option<Vec<_>>>() else {
        return NUMERIC;
    };
    let precision = all.iter().map(|(p, _)| *p).max().unwrap_or(0);
    match all.first() {
        Some((_, scale)) if all.iter().all(|(_, s)| s == scale) => {
            DataType::Decimal128(precision, *scale)
        }
        _ => NUMERIC,
    }
}

/// The type without precision and scale, where those of several values differ.
fn plain(data_type: DataType) -> DataType {
    match Type::of(&data_type).scalar {
        Scalar::Numeric if data_type != NUMERIC => {
            Type::of(&data_type).arrow().unwrap_or(data_type)
        }
        _ => data_type,
    }
}

fn item_of(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) => item.data_type().clone(),
        other => other.clone(),
    }
}
