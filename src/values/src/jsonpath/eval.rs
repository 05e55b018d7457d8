//! What a path finds, step by step.
//!
//! A step hands every value that it comes to on to the next one, and the last one to the list of
//! what is found. Where only the question is whether there is anything there is no list, and the
//! search ends with the first value. An error of the document either ends everything (`Err`) or,
//! where errors are silent (in conditions always), is [`Outcome::Failed`].
//!
//! In lax mode a step that asks for an object or a number takes an array apart, once, and one that
//! asks for an array takes a single value as one; what is not there is no error.

use super::item::{Arena, Item};
use super::offset::Offsets;
use super::{Arithmetic, Asked, Chain, Method, Op, Sign};
use crate::jsonb::{Builder, Elements, Kind, Pairs, Value};
use crate::numeric::Numeric;
use crate::plain::read_float;
use tidemark_common::{Error, Result, SqlState, check_interrupt};

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Found,
    Nothing,
    Failed,
}

/// Where values go; `None` where only their existence counts.
pub(super) type Found<'a> = Option<Vec<Item<'a>>>;

const ARRAY_NOT_FOUND: SqlState = SqlState("22039");
const OBJECT_NOT_FOUND: SqlState = SqlState("2203C");
const MEMBER_NOT_FOUND: SqlState = SqlState("2203A");
const NUMBER_NOT_FOUND: SqlState = SqlState("2203B");
const NOT_NUMERIC: SqlState = SqlState("22036");
const NOT_SINGLE: SqlState = SqlState("22038");
const BAD_SUBSCRIPT: SqlState = SqlState("22033");

/// Objects are told apart by a number for each document, times this, and their place in it.
const DOCUMENT_IDS: i64 = 10_000_000_000;

/// Values that may be found at once: a short path can find any number in a small document.
const FOUND_MAX: usize = 1 << 21;

/// A search.
pub(super) struct Run<'a> {
    pub(super) lax: bool,
    /// Whether what is not there is no error, now.
    lenient: bool,
    /// Whether errors are reported, now.
    pub(super) throws: bool,
    root: Item<'a>,
    /// What `@` is.
    pub(super) current: Item<'a>,
    /// The size of the innermost array that is subscripted.
    size: usize,
    variables: Option<Value<'a>>,
    /// The document that values are of, and its number.
    base: (Value<'a>, i64),
    next_id: i64,
    offsets: Option<Offsets>,
    arena: &'a Arena,
}

impl<'a> Run<'a> {
    pub fn new(lax: bool, asked: Asked<'a>, arena: &'a Arena) -> Run<'a> {
        Run {
            lax,
            lenient: lax,
            throws: !asked.silent,
            root: Item::Value(asked.document),
            current: Item::Value(asked.document),
            size: 0,
            variables: asked.variables,
            base: (asked.document, 0),
            next_id: 1 + i64::from(asked.variables.is_some()),
            offsets: None,
            arena,
        }
    }

    /// Evaluates a chain from the beginning.
    pub fn chain(&mut self, chain: &'a [Op], found: &mut Found<'a>) -> Result<Outcome> {
        let root = self.root.clone();
        self.steps(chain, root, found, self.lax)
    }

    /// An error of the document.
    fn fail(&self, state: SqlState, message: impl FnOnce() -> String) -> Result<Outcome> {
        if self.throws {
            return Err(Error::user(state, message()));
        }
        Ok(Outcome::Failed)
    }

    /// A value that is not there, or not of the kind that a step asks for.
    fn missing(&self, state: SqlState, message: impl FnOnce() -> String) -> Result<Outcome> {
        if self.lenient {
            return Ok(Outcome::Nothing);
        }
        self.fail(state, message)
    }

    /// Hands a value on to the steps that are left.
    fn next(&mut self, rest: &'a [Op], item: Item<'a>, found: &mut Found<'a>) -> Result<Outcome> {
        if !rest.is_empty() {
            return self.steps(rest, item, found, self.lax);
        }
        if let Some(found) = found {
            push(found, item)?;
        }
        Ok(Outcome::Found)
    }

    /// Takes the first step from a value, which is taken apart if it is an array and the step
    /// would rather have its elements.
    fn steps(
        &mut self,
        chain: &'a [Op],
        item: Item<'a>,
        found: &mut Found<'a>,
        unwrap: bool,
    ) -> Result<Outcome> {
        check_interrupt()?;
        let Some((op, rest)) = chain.split_first() else {
            return self.next(chain, item, found);
        };
        let takes_elements = match op {
            Op::Key(_) | Op::AnyKey | Op::Filter(_) | Op::Datetime(_) => true,
            Op::Method(method) => !matches!(method, Method::Type | Method::Size),
            _ => false,
        };
        if unwrap
            && takes_elements
            && let Some(array) = item.array()?
        {
            return self.elements(chain, array, found, false);
        }
        match op {
            Op::Null => self.constant(rest, Item::Null, found),
            Op::Bool(truth) => self.constant(rest, Item::Bool(*truth), found),
            Op::Number(number) => self.constant(rest, Item::Number(number.clone()), found),
            Op::Text(text) => self.constant(rest, Item::Text(text), found),
            Op::Variable(name) => self.variable(rest, name, found),
            Op::Root => {
                let root = self.root.clone();
                let base = match &root {
                    Item::Value(value) => (*value, 0),
                    _ => self.base,
                };
                self.based(base, |run| run.next(rest, root, found))
            }
            Op::Current => {
                let current = self.current.clone();
                self.next(rest, current, found)
            }
            Op::Last => {
                let last = Numeric::from(self.size as i64 - 1);
                self.constant(rest, Item::Number(last), found)
            }
            Op::Key(key) => self.key(rest, key, item, found),
            Op::AnyKey => match item.object()? {
                Some(object) => self.children(rest, object, found, self.lax),
                None => self.missing(OBJECT_NOT_FOUND, || {
                    "jsonpath wildcard member accessor can only be applied to an object".into()
                }),
            },
            Op::AnyElement => match item.array()? {
                Some(array) => self.elements(rest, array, found, self.lax),
                None if self.lax => self.next(rest, item, found),
                None => self.missing(ARRAY_NOT_FOUND, || {
                    "jsonpath wildcard array accessor can only be applied to an array".into()
                }),
            },
            Op::Subscripts(subscripts) => self.subscripted(rest, subscripts, item, found),
            Op::AnyLevel(first, last) => self.levels(rest, (*first, *last), item, found),
            Op::Filter(condition) => match self.nested_truth(condition, &item)? {
                Some(true) => self.next(rest, item, found),
                _ => Ok(Outcome::Nothing),
            },
            Op::Method(method) => self.method(*method, rest, item, found),
            Op::Datetime(_) => match item.text()? {
                Some(_) => Err(Error::unsupported(
                    "jsonpath item method .datetime() is not supported",
                )),
                None => self.fail(SqlState("22031"), || {
                    "jsonpath item method .datetime() can only be applied to a string".into()
                }),
            },
            Op::Unary(sign, operand) => self.unary(*sign, operand, rest, item, found),
            Op::Binary(arithmetic, left, right) => {
                self.binary(*arithmetic, (left, right), rest, item, found)
            }
            condition => {
                let truth = self.truth(condition, &item)?;
                self.constant(rest, truth.map_or(Item::Null, Item::Bool), found)
            }
        }
    }

    /// A value that is there whatever the document is.
    fn constant(
        &mut self,
        rest: &'a [Op],
        item: Item<'a>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        self.next(rest, item, found)
    }

    /// Goes on with values of another document.
    fn based(
        &mut self,
        base: (Value<'a>, i64),
        go: impl FnOnce(&mut Self) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let before = std::mem::replace(&mut self.base, base);
        let outcome = go(self);
        self.base = before;
        outcome
    }

    fn variable(&mut self, rest: &'a [Op], name: &str, found: &mut Found<'a>) -> Result<Outcome> {
        let Some(variables) = self.variables else {
            return self.next(rest, Item::Null, found);
        };
        let Some(value) = variables.get(name)? else {
            return Err(Error::user(
                SqlState::UNDEFINED_OBJECT,
                format!("could not find jsonpath variable \"{name}\""),
            ));
        };
        self.based((variables, 1), |run| {
            run.next(rest, Item::Value(value), found)
        })
    }

    fn key(
        &mut self,
        rest: &'a [Op],
        key: &str,
        item: Item<'a>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let Some(object) = item.object()? else {
            return self.missing(MEMBER_NOT_FOUND, || {
                "jsonpath member accessor can only be applied to an object".into()
            });
        };
        match object.get(key)? {
            Some(value) => self.next(rest, Item::Value(value), found),
            None => self.missing(MEMBER_NOT_FOUND, || {
                format!("JSON object does not contain key \"{key}\"")
            }),
        }
    }

    /// Takes the steps from every element of an array.
    fn elements(
        &mut self,
        chain: &'a [Op],
        array: Value<'a>,
        found: &mut Found<'a>,
        unwrap: bool,
    ) -> Result<Outcome> {
        self.children(chain, array, found, unwrap)
    }

    /// Takes the steps from every value in a container.
    fn children(
        &mut self,
        chain: &'a [Op],
        container: Value<'a>,
        found: &mut Found<'a>,
        unwrap: bool,
    ) -> Result<Outcome> {
        let mut outcome = Outcome::Nothing;
        for child in Children::of(container)? {
            outcome = self.child(chain, child?, found, unwrap)?;
            if ends(outcome, found) {
                break;
            }
        }
        Ok(outcome)
    }

    fn child(
        &mut self,
        chain: &'a [Op],
        child: Value<'a>,
        found: &mut Found<'a>,
        unwrap: bool,
    ) -> Result<Outcome> {
        if chain.is_empty() {
            return self.next(chain, Item::Value(child), found);
        }
        self.steps(chain, Item::Value(child), found, unwrap)
    }

    /// `.**{first to last}`: from a value and everything in it, down to some level.
    fn levels(
        &mut self,
        rest: &'a [Op],
        (first, last): (u32, u32),
        item: Item<'a>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let lenient = std::mem::replace(&mut self.lenient, true);
        let outcome = self.walk(rest, (first, last), item, found);
        self.lenient = lenient;
        outcome
    }

    fn walk(
        &mut self,
        rest: &'a [Op],
        (first, last): (u32, u32),
        item: Item<'a>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let container = item.container()?;
        let mut outcome = Outcome::Nothing;
        if first == 0 {
            outcome = self.next(rest, item, found)?;
            if outcome == Outcome::Found && found.is_none() {
                return Ok(outcome);
            }
        }
        let Some(container) = container else {
            return Ok(outcome);
        };
        // As in PostgreSQL, a silent error of the value itself is forgotten.
        outcome = Outcome::Nothing;
        let mut open = Vec::new();
        if last > 0 {
            open.push(Children::of(container)?);
        }
        while let Some(children) = open.last_mut() {
            let Some(child) = children.next() else {
                open.pop();
                continue;
            };
            let (child, level) = (child?, open.len());
            let is_scalar = child.kind()?.is_scalar();
            let leaves = first == u32::MAX && last == u32::MAX;
            if level >= first as usize || (leaves && is_scalar) {
                outcome = self.child(rest, child, found, self.lax)?;
                if ends(outcome, found) {
                    return Ok(outcome);
                }
            }
            if level < last as usize && !is_scalar {
                outcome = Outcome::Nothing;
                open.push(Children::of(child)?);
            }
        }
        Ok(outcome)
    }

    fn subscripted(
        &mut self,
        rest: &'a [Op],
        subscripts: &'a [(Chain, Option<Chain>)],
        item: Item<'a>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let array = item.array()?;
        if array.is_none() && !self.lax {
            return self.missing(ARRAY_NOT_FOUND, || {
                "jsonpath array accessor can only be applied to an array".into()
            });
        }
        let size = match array {
            Some(array) => array.array_length()?,
            None => 1,
        };
        let before = std::mem::replace(&mut self.size, size);
        let mut outcome = Outcome::Nothing;
        for (from, to) in subscripts {
            outcome = self.subscript(rest, (from, to.as_ref()), &item, array, found)?;
            if ends(outcome, found) {
                break;
            }
        }
        self.size = before;
        Ok(outcome)
    }

    fn subscript(
        &mut self,
        rest: &'a [Op],
        (from, to): (&'a Chain, Option<&'a Chain>),
        item: &Item<'a>,
        array: Option<Value<'a>>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let size = self.size as i64;
        let Some(from) = self.index(from, item)? else {
            return Ok(Outcome::Failed);
        };
        let to = match to {
            None => from,
            Some(to) => match self.index(to, item)? {
                Some(to) => to,
                None => return Ok(Outcome::Failed),
            },
        };
        if !self.lenient && (from < 0 || from > to || to >= size) {
            return self.fail(BAD_SUBSCRIPT, || {
                "jsonpath array subscript is out of bounds".into()
            });
        }
        let (from, to) = (from.max(0), to.min(size - 1));
        if from > to {
            return Ok(Outcome::Nothing);
        }
        let Some(array) = array else {
            return self.next(rest, item.clone(), found);
        };
        let mut outcome = Outcome::Nothing;
        let elements = array.elements()?.skip(from as usize);
        for element in elements.take((to - from + 1) as usize) {
            outcome = self.next(rest, Item::Value(element?), found)?;
            if ends(outcome, found) {
                break;
            }
        }
        Ok(outcome)
    }

    /// A subscript's number; `None` where a silent error is in its way.
    fn index(&mut self, chain: &'a Chain, item: &Item<'a>) -> Result<Option<i64>> {
        let mut found = Some(Vec::new());
        if self.steps(chain, item.clone(), &mut found, self.lax)? == Outcome::Failed {
            return Ok(None);
        }
        let Some(number) = single_number(found)? else {
            let message = || "jsonpath array subscript is not a single numeric value".into();
            self.fail(BAD_SUBSCRIPT, message)?;
            return Ok(None);
        };
        match number.trunc(0)?.to_i32() {
            Ok(index) => Ok(Some(i64::from(index))),
            Err(_) => {
                let message = || "jsonpath array subscript is out of integer range".into();
                self.fail(BAD_SUBSCRIPT, message)?;
                Ok(None)
            }
        }
    }

    /// Evaluates an operand. In lax mode arrays that it finds are taken apart if `unwrap` is set.
    pub(super) fn operand(
        &mut self,
        chain: &'a [Op],
        item: &Item<'a>,
        unwrap: bool,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let outcome = self.steps(chain, item.clone(), found, self.lax)?;
        if outcome == Outcome::Failed || !unwrap || !self.lax {
            return Ok(outcome);
        }
        if let Some(found) = found {
            let mut apart = Vec::with_capacity(found.len());
            for item in found.drain(..) {
                match item.array()? {
                    Some(array) => {
                        for element in array.elements()? {
                            push(&mut apart, Item::Value(element?))?;
                        }
                    }
                    None => push(&mut apart, item)?,
                }
            }
            *found = apart;
        }
        Ok(Outcome::Found)
    }

    fn binary(
        &mut self,
        arithmetic: Arithmetic,
        (left, right): (&'a Chain, &'a Chain),
        rest: &'a [Op],
        item: Item<'a>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let (mut lefts, mut rights) = (Some(Vec::new()), Some(Vec::new()));
        for (chain, values) in [(left, &mut lefts), (right, &mut rights)] {
            if self.operand(chain, &item, true, values)? == Outcome::Failed {
                return Ok(Outcome::Failed);
            }
        }
        let symbol = arithmetic.symbol();
        let not_single = |run: &Self, side: &str| {
            run.fail(NOT_SINGLE, || {
                format!(
                    "{side} operand of jsonpath operator {symbol} is not a single numeric value"
                )
            })
        };
        let Some(left) = single_number(lefts)? else {
            return not_single(self, "left");
        };
        let Some(right) = single_number(rights)? else {
            return not_single(self, "right");
        };
        let result = match arithmetic {
            Arithmetic::Add => left.add(&right),
            Arithmetic::Subtract => left.sub(&right),
            Arithmetic::Multiply => left.mul(&right),
            Arithmetic::Divide => left.div(&right),
            Arithmetic::Modulo => left.modulo(&right),
        };
        match result {
            Ok(number) => self.next(rest, Item::Number(number), found),
            Err(error) if self.throws => Err(error),
            Err(_) => Ok(Outcome::Failed),
        }
    }

    fn unary(
        &mut self,
        sign: Sign,
        operand: &'a Chain,
        rest: &'a [Op],
        item: Item<'a>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let mut values = Some(Vec::new());
        if self.operand(operand, &item, true, &mut values)? == Outcome::Failed {
            return Ok(Outcome::Failed);
        }
        let only_asks = found.is_none() && rest.is_empty();
        let mut outcome = Outcome::Nothing;
        for value in values.into_iter().flatten() {
            let number = match (value.number()?, sign) {
                (Some(number), Sign::Plus) => number,
                (Some(number), Sign::Minus) => number.negated(),
                (None, _) if only_asks => continue,
                (None, _) => {
                    let symbol = if sign == Sign::Plus { '+' } else { '-' };
                    return self.fail(NUMBER_NOT_FOUND, || {
                        format!(
                            "operand of unary jsonpath operator {symbol} is not a numeric value"
                        )
                    });
                }
            };
            match self.next(rest, Item::Number(number), found)? {
                Outcome::Failed => return Ok(Outcome::Failed),
                Outcome::Found if found.is_none() => return Ok(Outcome::Found),
                Outcome::Found => outcome = Outcome::Found,
                Outcome::Nothing => {}
            }
        }
        Ok(outcome)
    }

    fn method(
        &mut self,
        method: Method,
        rest: &'a [Op],
        item: Item<'a>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let name = method.name();
        match method {
            Method::Type => self.next(rest, Item::Text(item.kind()?.name()), found),
            Method::Size => {
                let size = match item.array()? {
                    Some(array) => array.array_length()? as i64,
                    None if self.lax => 1,
                    None => {
                        return self.missing(ARRAY_NOT_FOUND, || {
                            format!(
                                "jsonpath item method .{name}() can only be applied to an array"
                            )
                        });
                    }
                };
                self.next(rest, Item::Number(Numeric::from(size)), found)
            }
            Method::Double => self.double(rest, item, found),
            Method::KeyValue => self.key_value(rest, item, found),
            Method::Ceiling | Method::Floor | Method::Abs => {
                let Some(number) = item.number()? else {
                    return self.fail(NOT_NUMERIC, || {
                        format!(
                            "jsonpath item method .{name}() can only be applied to a numeric value"
                        )
                    });
                };
                let number = match method {
                    Method::Ceiling => number.ceil()?,
                    Method::Floor => number.floor()?,
                    _ => number.abs(),
                };
                self.next(rest, Item::Number(number), found)
            }
        }
    }

    /// A number stays what it is, if it is one that a `double precision` can be near to.
    fn double(&mut self, rest: &'a [Op], item: Item<'a>, found: &mut Found<'a>) -> Result<Outcome> {
        let read = |text: &str| {
            let edge = |v: f64| v == 0.0 || v.is_infinite();
            let value = read_float(text, edge, "double precision").ok();
            value.filter(|v: &f64| v.is_finite())
        };
        if let Some(text) = item.text()? {
            return match read(text) {
                Some(value) => self.next(rest, Item::Number(Numeric::from(value)), found),
                None => self.fail(NOT_NUMERIC, || {
                    "string argument of jsonpath item method .double() is not a valid \
                     representation of a double precision number"
                        .into()
                }),
            };
        }
        match item.number()? {
            Some(number) if read(&number.to_string()).is_some() => self.next(rest, item, found),
            Some(_) => self.fail(NOT_NUMERIC, || {
                "numeric argument of jsonpath item method .double() is out of range for type \
                 double precision"
                    .into()
            }),
            None => self.fail(NOT_NUMERIC, || {
                "jsonpath item method .double() can only be applied to a string or numeric value"
                    .into()
            }),
        }
    }

    /// An object's pairs as objects, with a number that tells the object from others.
    fn key_value(
        &mut self,
        rest: &'a [Op],
        item: Item<'a>,
        found: &mut Found<'a>,
    ) -> Result<Outcome> {
        let Some(object) = item.object()? else {
            return self.fail(OBJECT_NOT_FOUND, || {
                "jsonpath item method .keyvalue() can only be applied to an object".into()
            });
        };
        let id = self.base.1 * DOCUMENT_IDS + self.offset(object)?;
        let mut outcome = Outcome::Nothing;
        let mut builder = Builder::new();
        for pair in object.pairs()? {
            if rest.is_empty() && found.is_none() {
                return Ok(Outcome::Found);
            }
            let (key, value) = pair?;
            builder.begin_object();
            builder.key("id")?;
            builder.integer(id);
            builder.key("key")?;
            builder.string(key)?;
            builder.key("value")?;
            builder.value(value)?;
            builder.end_object()?;
            let made = self.arena.keep(builder.finish())?;
            let base = (made, self.next_id);
            self.next_id += 1;
            outcome = self.based(base, |run| run.next(rest, Item::Value(made), found))?;
            if ends(outcome, found) {
                break;
            }
        }
        Ok(outcome)
    }

    fn offset(&mut self, object: Value<'a>) -> Result<i64> {
        let (base, _) = self.base;
        if object.base() == base.base() && object.place() == base.place() {
            return Ok(0);
        }
        let known = self.offsets.as_ref();
        if !known.is_some_and(|offsets| offsets.are_of(base)) {
            self.offsets = Some(Offsets::new(base)?);
        }
        Ok(self.offsets.as_ref().map_or(0, |o| o.of(object)))
    }
}

/// Adds a value to what is found. Error 54000 beyond [`FOUND_MAX`].
fn push<'a>(found: &mut Vec<Item<'a>>, item: Item<'a>) -> Result<()> {
    if found.len() == FOUND_MAX {
        let message = format!("a path finds more than {FOUND_MAX} values");
        return Err(Error::user(SqlState("54000"), message));
    }
    found.push(item);
    Ok(())
}

/// Whether what one value came to ends the search.
fn ends(outcome: Outcome, found: &Found<'_>) -> bool {
    match outcome {
        Outcome::Failed => true,
        Outcome::Found => found.is_none(),
        Outcome::Nothing => false,
    }
}

/// The number that is all that was found.
fn single_number(found: Found<'_>) -> Result<Option<Numeric>> {
    match found.as_deref() {
        Some([item]) if item.kind()? == Kind::Number => item.number(),
        _ => Ok(None),
    }
}

/// The values in a container.
enum Children<'a> {
    Elements(Elements<'a>),
    Pairs(Pairs<'a>),
}

impl<'a> Children<'a> {
    fn of(container: Value<'a>) -> Result<Children<'a>> {
        Ok(match container.kind()? {
            Kind::Object => Children::Pairs(container.pairs()?),
            _ => Children::Elements(container.elements()?),
        })
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Result<Value<'a>>;

    fn next(&mut self) -> Option<Result<Value<'a>>> {
        match self {
            Children::Elements(elements) => elements.next(),
            Children::Pairs(pairs) => Some(pairs.next()?.map(|(_, value)| value)),
        }
    }
}
