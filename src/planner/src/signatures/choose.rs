//! One signature for a call, as PostgreSQL chooses: what matches exactly; else, of those that take
//! the arguments, the one with most exact matches, then with most preferred types; quoted constants
//! are text wherever one of the rest takes text, and otherwise of the type that the other arguments
//! have.

use super::bind::{Call, bind};
use super::table::Signature;
use super::types::{Arg, Category, Scalar, Type, type_text};
use crate::error::external;
use datafusion_common::DataFusionError;
use tidemark_common::{Error, SqlState};

/// Why a call means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// No function takes these arguments (`42883`).
    None,
    /// Several do (`42725`).
    Several,
    /// Nothing tells the type of what is polymorphic (`42804`).
    Untyped,
}

/// The call that `args` mean among the signatures of one name.
pub(crate) fn choose(signatures: &[Signature], args: &[Arg]) -> Result<Call, Mismatch> {
    let exact = signatures.iter().find(|s| {
        s.params.len() == args.len()
            && !s.variadic
            && s.params.iter().zip(args).all(|(p, a)| *p == a.type_)
    });
    let chosen = match exact {
        Some(exact) => exact,
        None => select(viable(signatures, args), args)?,
    };
    match bind(chosen, args) {
        Some(Ok(call)) => Ok(call),
        Some(Err(())) => Err(Mismatch::Untyped),
        None => Err(Mismatch::None),
    }
}

/// The same of an operator's operands: beside one that has a type, an untyped one has the same, if
/// there is an operator of two such operands.
pub(crate) fn choose_operator(signatures: &[Signature], args: &[Arg]) -> Result<Call, Mismatch> {
    let typed = alike(args);
    let of_one_type = signatures.iter().find(|s| {
        s.params.len() == args.len() && s.params.iter().zip(&typed).all(|(p, a)| *p == a.type_)
    });
    match of_one_type.and_then(|s| bind(s, args)) {
        Some(Ok(call)) => Ok(call),
        _ => choose(signatures, args),
    }
}

/// The arguments with the first known type in place of what is untyped.
fn alike(args: &[Arg]) -> Vec<Arg> {
    let Some(known) = args.iter().find(|a| !a.is_unknown()) else {
        return args.to_vec();
    };
    let typed = |a: &Arg| {
        if a.is_unknown() {
            known.clone()
        } else {
            a.clone()
        }
    };
    args.iter().map(typed).collect()
}

/// The signatures that take the arguments; of those that leave parameters out or repeat one only
/// if none does without.
fn viable<'a>(signatures: &'a [Signature], args: &[Arg]) -> Vec<&'a Signature> {
    let all: Vec<&Signature> = signatures
        .iter()
        .filter(|s| bind(s, args).is_some())
        .collect();
    let plain = |s: &&&Signature| !s.variadic && s.params.len() == args.len();
    let straight: Vec<&Signature> = all.iter().filter(plain).copied().collect();
    if straight.is_empty() { all } else { straight }
}

fn select<'a>(mut left: Vec<&'a Signature>, args: &[Arg]) -> Result<&'a Signature, Mismatch> {
    let param = |s: &Signature, i: usize| {
        s.params_of(args.len())
            .map_or(Type::scalar(Scalar::Any), |params| params[i])
    };
    let known = || args.iter().enumerate().filter(|(_, a)| !a.is_unknown());
    let one = |left: &[&'a Signature]| match left {
        [] => Some(Err(Mismatch::None)),
        [only] => Some(Ok(*only)),
        _ => None,
    };
    if let Some(done) = one(&left) {
        return done;
    }
    let exact = |s: &Signature| known().filter(|(i, a)| param(s, *i) == a.type_).count();
    keep_best(&mut left, exact);
    if let Some(done) = one(&left) {
        return done;
    }
    let preferred = |s: &Signature| {
        let suits = |(i, a): &(usize, &Arg)| {
            let p = param(s, *i);
            p == a.type_ || p.is_preferred() && p.category() == a.type_.category()
        };
        known().filter(suits).count()
    };
    keep_best(&mut left, preferred);
    if let Some(done) = one(&left) {
        return done;
    }
    if known().count() == args.len() {
        return Err(Mismatch::Several);
    }
    by_category(&mut left, args, &param);
    if let Some(done) = one(&left) {
        return done;
    }
    // Untyped arguments are taken to be of the type that all others have.
    let mut types = known().map(|(_, a)| a.type_);
    if let Some(first) = types.next()
        && types.all(|t| t == first)
    {
        let typed = alike(args);
        let takes = |s: &&&Signature| matches!(bind(s, &typed), Some(Ok(_)));
        let taking: Vec<&Signature> = left.iter().filter(takes).copied().collect();
        if let [only] = taking[..] {
            return Ok(only);
        }
    }
    Err(Mismatch::Several)
}

fn keep_best(left: &mut Vec<&Signature>, score: impl Fn(&Signature) -> usize) {
    let best = left.iter().map(|s| score(s)).max().unwrap_or(0);
    left.retain(|s| score(s) == best);
}

/// Drops those that take an untyped argument as something of another category than the others do:
/// text is taken for it, if one takes text.
fn by_category(
    left: &mut Vec<&Signature>,
    args: &[Arg],
    param: &impl Fn(&Signature, usize) -> Type,
) {
    let mut wanted: Vec<(usize, Category, bool)> = Vec::new();
    for (i, _) in args.iter().enumerate().filter(|(_, a)| a.is_unknown()) {
        let categories: Vec<Category> = left.iter().map(|s| param(s, i).category()).collect();
        let category = if categories.contains(&Category::Text) {
            Category::Text
        } else if categories.iter().all(|c| *c == categories[0]) {
            categories[0]
        } else {
            return;
        };
        let preferred = left
            .iter()
            .map(|s| param(s, i))
            .any(|p| p.category() == category && p.is_preferred());
        wanted.push((i, category, preferred));
    }
    let suits = |s: &&&Signature| {
        wanted.iter().all(|(i, category, preferred)| {
            let p = param(s, *i);
            p.category() == *category && (!preferred || p.is_preferred())
        })
    };
    let kept: Vec<&Signature> = left.iter().filter(suits).copied().collect();
    if !kept.is_empty() {
        *left = kept;
    }
}

/// `operator does not exist: text = integer`.
pub(crate) fn no_operator(symbol: &str, args: [&Arg; 2], mismatch: Mismatch) -> DataFusionError {
    let call = format!("{} {symbol} {}", type_text(args[0]), type_text(args[1]));
    external(match mismatch {
        Mismatch::Several => {
            Error::user(SqlState("42725"), format!("operator is not unique: {call}")).with_hint(
                "Could not choose a best candidate operator. You might need to add explicit type \
             casts.",
            )
        }
        Mismatch::None | Mismatch::Untyped => Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("operator does not exist: {call}"),
        )
        .with_hint(
            "No operator matches the given name and argument types. You might need to add explicit \
             type casts.",
        ),
    })
}
