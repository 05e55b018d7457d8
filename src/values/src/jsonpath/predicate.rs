//! Conditions, in three-valued logic: `None` is unknown. They hold of sequences where they hold of
//! some pair of values, one from either side. Errors in them make them unknown; in strict mode any
//! error does, also one that stands behind a pair of which the condition holds.

use super::eval::{Outcome, Run};
use super::item::Item;
use super::{Chain, Comparison, Op};
use crate::jsonb::Kind;
use std::cmp::Ordering;
use tidemark_common::{Error, Result, check_interrupt};

type Truth = Option<bool>;

impl<'a> Run<'a> {
    /// Whether a filter's condition holds of a value.
    pub(super) fn nested_truth(&mut self, condition: &'a Chain, item: &Item<'a>) -> Result<Truth> {
        let before = std::mem::replace(&mut self.current, item.clone());
        let truth = self.part(condition, item);
        self.current = before;
        truth
    }

    /// A condition within a condition.
    fn part(&mut self, chain: &'a Chain, item: &Item<'a>) -> Result<Truth> {
        match chain.as_slice() {
            [condition] => self.truth(condition, item),
            _ => Err(Error::internal("a condition of a path has accessors")),
        }
    }

    pub(super) fn truth(&mut self, op: &'a Op, item: &Item<'a>) -> Result<Truth> {
        match op {
            Op::And(left, right) => {
                let left = self.part(left, item)?;
                if left == Some(false) {
                    return Ok(left);
                }
                let right = self.part(right, item)?;
                Ok(if right == Some(true) { left } else { right })
            }
            Op::Or(left, right) => {
                let left = self.part(left, item)?;
                if left == Some(true) {
                    return Ok(left);
                }
                let right = self.part(right, item)?;
                Ok(if right == Some(false) { left } else { right })
            }
            Op::Not(part) => Ok(self.part(part, item)?.map(|truth| !truth)),
            Op::IsUnknown(part) => Ok(Some(self.part(part, item)?.is_none())),
            Op::Exists(part) => self.exists(part, item),
            Op::Compare(comparison, left, right) => {
                self.some_pair(item, left, Some((right, true)), |left, right| match right {
                    Some(right) => compare(*comparison, left, right),
                    None => Ok(None),
                })
            }
            Op::StartsWith(whole, initial) => {
                self.some_pair(item, whole, Some((initial, false)), |whole, initial| {
                    let initial = match initial {
                        Some(initial) => initial.text()?,
                        None => None,
                    };
                    Ok(match (whole.text()?, initial) {
                        (Some(whole), Some(initial)) => Some(whole.starts_with(initial)),
                        _ => None,
                    })
                })
            }
            Op::LikeRegex(part, pattern) => {
                self.some_pair(item, part, None, |text, _| match text.text()? {
                    Some(text) => pattern.regex.is_match(text).map(Some),
                    None => Ok(None),
                })
            }
            _ => Err(Error::internal("a path has a value where a condition is")),
        }
    }

    /// Evaluates an operand without reporting errors.
    fn silently(
        &mut self,
        chain: &'a Chain,
        item: &Item<'a>,
        unwrap: bool,
        found: &mut Option<Vec<Item<'a>>>,
    ) -> Result<Outcome> {
        let throws = std::mem::replace(&mut self.throws, false);
        let outcome = self.operand(chain, item, unwrap, found);
        self.throws = throws;
        outcome
    }

    fn exists(&mut self, chain: &'a Chain, item: &Item<'a>) -> Result<Truth> {
        let mut found = if self.lax { None } else { Some(Vec::new()) };
        let outcome = self.silently(chain, item, false, &mut found)?;
        Ok(match (outcome, found) {
            (Outcome::Failed, _) => None,
            (_, Some(found)) => Some(!found.is_empty()),
            (outcome, None) => Some(outcome == Outcome::Found),
        })
    }

    /// Whether a test holds of some pair of values, or of some value where there is no right side.
    /// Arrays among the values of the left side are taken apart; of the right one if it is said.
    fn some_pair(
        &mut self,
        item: &Item<'a>,
        left: &'a Chain,
        right: Option<(&'a Chain, bool)>,
        test: impl Fn(&Item<'a>, Option<&Item<'a>>) -> Result<Truth>,
    ) -> Result<Truth> {
        let mut lefts = Some(Vec::new());
        if self.silently(left, item, true, &mut lefts)? == Outcome::Failed {
            return Ok(None);
        }
        let rights = match right {
            None => vec![None],
            Some((right, unwrap)) => {
                let mut rights = Some(Vec::new());
                if self.silently(right, item, unwrap, &mut rights)? == Outcome::Failed {
                    return Ok(None);
                }
                rights.into_iter().flatten().map(Some).collect()
            }
        };
        let (mut holds, mut fails) = (false, false);
        for left in lefts.iter().flatten() {
            check_interrupt()?;
            for right in &rights {
                match test(left, right.as_ref())? {
                    None if !self.lax => return Ok(None),
                    None => fails = true,
                    Some(true) if self.lax => return Ok(Some(true)),
                    Some(truth) => holds |= truth,
                }
            }
        }
        Ok(match (holds, fails) {
            (true, _) => Some(true),
            (false, true) => None,
            (false, false) => Some(false),
        })
    }
}

/// Values of different kinds are not compared, but for null, which is only unlike the others.
fn compare(comparison: Comparison, left: &Item<'_>, right: &Item<'_>) -> Result<Truth> {
    let kinds = (left.kind()?, right.kind()?);
    let ordering = match kinds {
        (Kind::Null, Kind::Null) => Ordering::Equal,
        (Kind::Null, _) | (_, Kind::Null) => {
            return Ok(Some(comparison == Comparison::NotEqual));
        }
        (Kind::Boolean, Kind::Boolean) => left.truth()?.cmp(&right.truth()?),
        (Kind::Number, Kind::Number) => left.number()?.cmp(&right.number()?),
        (Kind::String, Kind::String) => left.text()?.cmp(&right.text()?),
        _ => return Ok(None),
    };
    Ok(Some(match comparison {
        Comparison::Equal => ordering.is_eq(),
        Comparison::NotEqual => ordering.is_ne(),
        Comparison::Less => ordering.is_lt(),
        Comparison::Greater => ordering.is_gt(),
        Comparison::LessOrEqual => ordering.is_le(),
        Comparison::GreaterOrEqual => ordering.is_ge(),
    }))
}
