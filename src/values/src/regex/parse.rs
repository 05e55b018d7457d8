//! Tokens to an expression, and to the tree that says how a match is taken apart.
//!
//! PostgreSQL's rules of preference work on that tree: a branch prefers as its first quantified
//! part does, an alternation prefers more, and `{m}` has no preference of its own. Parts without
//! captures, references and clashes of preference stay one leaf: only their extent matters.

use super::lex::{Lexer, Token};
use super::{Fault, Flags, names};
use crate::letters::{Class, Ranges, lower, tidy, upper};
use std::rc::Rc;

/// A place between characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    TextStart,
    TextEnd,
    /// The start of the text, or after a line feed.
    LineStart,
    LineEnd,
    WordStart,
    WordEnd,
    WordEdge,
    NoWordEdge,
}

/// What texts an expression matches, without regard to preference and captures.
#[derive(Debug)]
pub(super) enum Re {
    Empty,
    /// One character of a set, by its number.
    Set(usize),
    Place(Place),
    /// By number.
    Look(usize),
    Cat(Vec<Rc<Re>>),
    Alt(Vec<Rc<Re>>),
    Repeat(Rc<Re>, u32, Option<u32>),
}

/// What follows or precedes a place.
#[derive(Debug)]
pub(super) struct Look {
    pub ahead: bool,
    pub positive: bool,
    pub re: Rc<Re>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Op {
    /// Nothing within matters.
    Leaf,
    /// The text of a group again.
    Back(usize, u32, Option<u32>),
    Cat,
    Alt,
    Repeat(u32, Option<u32>),
    /// A second group around the same text.
    Group,
}

/// A part of the expression in whose inner extents somebody takes interest.
#[derive(Debug)]
pub(super) struct Node {
    pub op: Op,
    pub flags: u8,
    /// The group that it captures, 0 for none.
    pub capture: usize,
    /// Its number among the parts.
    pub number: usize,
    pub re: Rc<Re>,
    pub children: Vec<Node>,
}

const LONGER: u8 = 1;
pub(super) const SHORTER: u8 = 2;
const MIXED: u8 = 4;
const CAPTURES: u8 = 8;
const REFERS: u8 = 16;
const MESSY: u8 = MIXED | CAPTURES | REFERS;

/// Of a part's flags what holds for the whole.
fn up(flags: u8) -> u8 {
    let clash = flags & LONGER != 0 && flags & SHORTER != 0;
    (flags & MESSY) | if clash { MIXED } else { 0 }
}

fn preference(flags: u8) -> u8 {
    flags & (LONGER | SHORTER)
}

/// The flags of a whole whose first part has the flags `first`.
fn combine(first: u8, second: u8) -> u8 {
    let preferred = match preference(first) {
        0 => preference(second),
        p => p,
    };
    up(first | second) | preferred
}

impl Node {
    fn new(op: Op, flags: u8, re: Rc<Re>, children: Vec<Node>) -> Node {
        Node {
            op,
            flags,
            capture: 0,
            number: 0,
            re,
            children,
        }
    }

    /// Numbers the parts; gives what each matches.
    pub fn count(&mut self, parts: &mut Vec<Rc<Re>>) {
        self.number = parts.len();
        parts.push(self.re.clone());
        self.children.iter_mut().for_each(|c| c.count(parts));
    }

    fn leaf(flags: u8, re: Rc<Re>) -> Node {
        Node::new(Op::Leaf, flags, re, Vec::new())
    }
}

/// Everything that a pattern says.
pub(super) struct Parsed {
    pub tree: Node,
    pub groups: usize,
    pub refers: bool,
    pub looks: Vec<Look>,
    pub sets: Vec<Ranges>,
    pub flags: Flags,
}

/// How deep parentheses may nest, and how many groups a branch may have.
const DEPTH_MAX: usize = 600;

/// The greatest number in `{}`.
const REPEAT_MAX: u32 = 255;

pub(super) fn parse(pattern: &str, flags: Flags) -> Result<Parsed, Fault> {
    let mut parser = Parser {
        lexer: Lexer::new(pattern, flags)?,
        groups: Vec::new(),
        refers: false,
        looks: Vec::new(),
        sets: Vec::new(),
        depth: 0,
    };
    let tree = parser.alternatives(false, false)?;
    Ok(Parsed {
        tree,
        groups: parser.groups.len(),
        refers: parser.refers,
        looks: parser.looks,
        sets: parser.sets,
        flags: parser.lexer.flags,
    })
}

struct Parser {
    lexer: Lexer,
    /// What each group may match, once it is closed.
    groups: Vec<Option<Rc<Re>>>,
    refers: bool,
    looks: Vec<Look>,
    sets: Vec<Ranges>,
    depth: usize,
}

/// An atom or constraint as read.
enum Atom {
    Constraint(Rc<Re>),
    Plain(Rc<Re>),
    Inner(Node),
    Captured(Node),
    Back(usize),
}

/// How often: least, most, and the preference.
type Quantity = (u32, Option<u32>, u8);

impl Parser {
    fn token(&self) -> Token {
        self.lexer.token
    }

    fn next(&mut self) -> Result<(), Fault> {
        self.lexer.next()
    }

    fn at_end(&self, in_group: bool) -> bool {
        matches!(self.token(), Token::Or | Token::End) || (in_group && self.token() == Token::Close)
    }

    /// Branches up to the end or the closing parenthesis, which stays.
    fn alternatives(&mut self, in_group: bool, in_look: bool) -> Result<Node, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::Complex);
        }
        let mut branches = Vec::new();
        let mut flags = LONGER;
        loop {
            let branch = self.branch(in_group, in_look)?;
            flags |= up(flags | branch.flags);
            branches.push(branch);
            if self.token() != Token::Or {
                break;
            }
            self.next()?;
        }
        if in_group && self.token() != Token::Close {
            return Err(Fault::Parentheses);
        }
        self.depth -= 1;
        if branches.len() == 1 {
            return branches.pop().ok_or(Fault::Bug);
        }
        let re = Rc::new(Re::Alt(branches.iter().map(|b| b.re.clone()).collect()));
        if flags & MESSY == 0 {
            return Ok(Node::leaf(flags, re));
        }
        Ok(Node::new(Op::Alt, flags, re, branches))
    }

    /// Quantified atoms side by side, up to `|` or the end.
    fn branch(&mut self, in_group: bool, in_look: bool) -> Result<Node, Fault> {
        let (mut plain, mut flags) = (Vec::new(), 0u8);
        while !self.at_end(in_group) {
            let atom = self.atom(in_look)?;
            if let Atom::Constraint(re) = atom {
                plain.push(re);
                continue;
            }
            let (least, most, preferred) = self.quantity()?;
            if (least, most) == (0, Some(0)) {
                plain.push(Rc::new(Re::Empty));
                continue;
            }
            let inner = match &atom {
                Atom::Inner(node) | Atom::Captured(node) => node.flags,
                _ => 0,
            };
            let all = flags | preferred | inner;
            let (node, back) = match atom {
                Atom::Plain(re) if up(all) & MESSY == 0 => {
                    plain.push(repeat(re, least, most));
                    flags = all;
                    continue;
                }
                Atom::Inner(node) if up(all) & MESSY == 0 => {
                    plain.push(repeat(node.re, least, most));
                    flags = all;
                    continue;
                }
                Atom::Plain(re) => (Node::leaf(0, re), None),
                Atom::Inner(node) | Atom::Captured(node) => (node, None),
                Atom::Back(group) => {
                    let known = self.groups.get(group - 1).cloned().flatten();
                    let re = unconstrained(&known.ok_or(Fault::Reference)?);
                    (Node::leaf(REFERS, re), Some(group))
                }
                Atom::Constraint(_) => return Err(Fault::Bug),
            };
            let combined = combine(preferred, node.flags);
            let quantified = quantified(node, back, (least, most, preferred));
            return self.rest(plain, flags, quantified, combined, in_group, in_look);
        }
        Ok(Node::leaf(flags, cat(plain)))
    }

    /// A branch of a plain beginning, a part that is not plain, and what follows.
    fn rest(
        &mut self,
        plain: Vec<Rc<Re>>,
        mut flags: u8,
        part: Node,
        combined: u8,
        in_group: bool,
        in_look: bool,
    ) -> Result<Node, Fault> {
        let first = (!plain.is_empty()).then(|| Node::leaf(flags, cat(plain)));
        if self.at_end(in_group) {
            flags |= combine(flags, part.flags);
            return Ok(match first {
                None => part,
                Some(first) => pair(first, part, flags),
            });
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::Complex);
        }
        let rest = self.branch(in_group, in_look)?;
        self.depth -= 1;
        let both = combined | combine(combined, rest.flags);
        flags |= combine(flags, both);
        Ok(match first {
            None => pair(part, rest, flags),
            Some(first) => {
                let leaves = part.op == Op::Leaf && rest.op == Op::Leaf;
                let second = if leaves && up(part.flags | rest.flags) & MESSY == 0 {
                    let flags = combine(part.flags, rest.flags);
                    Node::leaf(flags, cat(vec![part.re, rest.re]))
                } else {
                    pair(part, rest, both)
                };
                pair(first, second, flags)
            }
        })
    }

    fn atom(&mut self, in_look: bool) -> Result<Atom, Fault> {
        let place = |p| Ok(Atom::Constraint(Rc::new(Re::Place(p))));
        let token = self.token();
        let lines = self.lexer.flags.newline_anchors;
        let atom = match token {
            Token::LineStart if lines => place(Place::LineStart),
            Token::LineStart | Token::TextStart => place(Place::TextStart),
            Token::LineEnd if lines => place(Place::LineEnd),
            Token::LineEnd | Token::TextEnd => place(Place::TextEnd),
            Token::WordStart => place(Place::WordStart),
            Token::WordEnd => place(Place::WordEnd),
            Token::WordEdge => place(Place::WordEdge),
            Token::NoWordEdge => place(Place::NoWordEdge),
            Token::Look { ahead, positive } => {
                self.next()?;
                let re = self.alternatives(true, true)?.re;
                self.looks.push(Look {
                    ahead,
                    positive,
                    re,
                });
                Ok(Atom::Constraint(Rc::new(Re::Look(self.looks.len() - 1))))
            }
            Token::Star(_) | Token::Plus(_) | Token::Optional(_) | Token::BoundOpen => {
                Err(Fault::Quantifier)
            }
            Token::Close if self.lexer.flags.advanced || !self.lexer.flags.extended => {
                Err(Fault::Parentheses)
            }
            Token::Close => Ok(self.set(self.cases(u32::from(')')))),
            Token::Plain(c) => Ok(self.set(self.cases(c))),
            Token::Bracket(positive) => {
                let ranges = self.brackets(positive)?;
                Ok(self.set(ranges))
            }
            Token::Class(class) => Ok(self.set(self.class(class))),
            Token::NotClass(class) => Ok(self.set(complement(&self.class(class)))),
            Token::Any => {
                let all = vec![(0, u32::MAX)];
                let lines = vec![(0, 9), (11, u32::MAX)];
                let stops = self.lexer.flags.newline_stops;
                Ok(self.set(if stops { lines } else { all }))
            }
            Token::Open(captures) => return self.group(captures && !in_look, in_look),
            Token::Back(group) => {
                let group = group as usize;
                let known = !in_look && self.groups.get(group.wrapping_sub(1)).is_some();
                if !known || self.groups[group - 1].is_none() {
                    return Err(Fault::Reference);
                }
                self.refers = true;
                Ok(Atom::Back(group))
            }
            _ => Err(Fault::Bug),
        }?;
        self.next()?;
        Ok(atom)
    }

    /// A parenthesis.
    fn group(&mut self, captures: bool, in_look: bool) -> Result<Atom, Fault> {
        if captures {
            self.groups.push(None);
            self.lexer.groups += 1;
        }
        let number = self.groups.len();
        self.next()?;
        let mut node = self.alternatives(true, in_look)?;
        self.next()?;
        if !captures {
            return Ok(Atom::Inner(node));
        }
        if node.capture == 0 {
            node.flags |= CAPTURES;
        } else {
            let (flags, re) = (node.flags | CAPTURES, node.re.clone());
            node = Node::new(Op::Group, flags, re, vec![node]);
        }
        node.capture = number;
        self.groups[number - 1] = Some(node.re.clone());
        Ok(Atom::Captured(node))
    }

    fn quantity(&mut self) -> Result<Quantity, Fault> {
        let prefer = |more| if more { LONGER } else { SHORTER };
        let quantity = match self.token() {
            Token::Star(more) => (0, None, prefer(more)),
            Token::Plus(more) => (1, None, prefer(more)),
            Token::Optional(more) => (0, Some(1), prefer(more)),
            Token::BoundOpen => self.bound()?,
            _ => return Ok((1, Some(1), 0)),
        };
        self.next()?;
        Ok(quantity)
    }

    /// `{m}`, `{m,}` or `{m,n}` up to the closing brace, which stays.
    fn bound(&mut self) -> Result<Quantity, Fault> {
        self.next()?;
        let least = self.number()?;
        let mut most = Some(least);
        let range = self.token() == Token::Comma;
        if range {
            self.next()?;
            most = match self.token() {
                Token::Digit(_) => Some(self.number()?),
                _ => None,
            };
            if most.is_some_and(|most| least > most) {
                return Err(Fault::Repetition);
            }
        }
        match self.token() {
            Token::BoundClose(_) if !range => Ok((least, most, 0)),
            Token::BoundClose(more) => Ok((least, most, if more { LONGER } else { SHORTER })),
            _ => Err(Fault::Repetition),
        }
    }

    fn number(&mut self) -> Result<u32, Fault> {
        let mut number = 0;
        while let Token::Digit(digit) = self.token() {
            if number >= REPEAT_MAX {
                return Err(Fault::Repetition);
            }
            number = number * 10 + digit;
            self.next()?;
        }
        if number > REPEAT_MAX {
            return Err(Fault::Repetition);
        }
        Ok(number)
    }

    fn set(&mut self, ranges: Ranges) -> Atom {
        let known = self.sets.iter().position(|s| *s == ranges);
        let number = known.unwrap_or_else(|| {
            self.sets.push(ranges);
            self.sets.len() - 1
        });
        Atom::Plain(Rc::new(Re::Set(number)))
    }

    /// A character, and its other case where that does not matter.
    fn cases(&self, c: u32) -> Ranges {
        let mut ranges = vec![(c, c)];
        self.add_cases(c, &mut ranges);
        tidy(&mut ranges);
        ranges
    }

    fn add_cases(&self, c: u32, ranges: &mut Ranges) {
        if let Some(c) = char::from_u32(c).filter(|_| self.lexer.flags.ignore_case) {
            let (lower, upper) = (u32::from(lower(c)), u32::from(upper(c)));
            ranges.extend([(lower, lower), (upper, upper)]);
        }
    }

    fn class(&self, class: Class) -> Ranges {
        match class {
            Class::Lower | Class::Upper if self.lexer.flags.ignore_case => Class::Alpha.ranges(),
            class => class.ranges(),
        }
    }

    /// `[...]` up to the closing bracket, which stays.
    fn brackets(&mut self, positive: bool) -> Result<Ranges, Fault> {
        self.next()?;
        let mut ranges = Vec::new();
        while self.token() != Token::BracketEnd {
            self.bracket_part(&mut ranges)?;
        }
        tidy(&mut ranges);
        if positive {
            return Ok(ranges);
        }
        if self.lexer.flags.newline_stops {
            ranges.push((10, 10));
            tidy(&mut ranges);
        }
        Ok(complement(&ranges))
    }

    fn bracket_part(&mut self, ranges: &mut Ranges) -> Result<(), Fault> {
        let from = match self.token() {
            Token::Plain(c) => {
                self.next()?;
                c
            }
            Token::Collating => self.collating()?,
            Token::Range => return Err(Fault::Range),
            Token::Equivalence => {
                let c = self.collating()?;
                ranges.push((c, c));
                self.add_cases(c, ranges);
                return Ok(());
            }
            Token::NamedClass => {
                let name = self.element_name()?;
                let class = Class::named(&name).ok_or(Fault::ClassName)?;
                ranges.extend(self.class(class));
                return Ok(());
            }
            Token::Class(class) => {
                ranges.extend(self.class(class));
                return self.next();
            }
            Token::NotClass(class) => {
                ranges.extend(complement(&self.class(class)));
                return self.next();
            }
            _ => return Err(Fault::Bug),
        };
        let to = match self.token() {
            Token::Range => self.range_end()?,
            _ => from,
        };
        if from > to {
            return Err(Fault::Range);
        }
        ranges.push((from, to));
        if self.lexer.flags.ignore_case {
            (from..=to.min(u32::from(char::MAX))).for_each(|c| self.add_cases(c, ranges));
        }
        Ok(())
    }

    fn range_end(&mut self) -> Result<u32, Fault> {
        self.next()?;
        match self.token() {
            Token::Plain(c) => {
                self.next()?;
                Ok(c)
            }
            Token::Range => {
                self.next()?;
                Ok(u32::from('-'))
            }
            Token::Collating => self.collating(),
            _ => Err(Fault::Range),
        }
    }

    /// The text within `[: :]` and the like, which are passed.
    fn element_name(&mut self) -> Result<String, Fault> {
        self.next()?;
        let mut name = String::new();
        while let Token::Plain(c) = self.token() {
            name.extend(char::from_u32(c));
            self.next()?;
        }
        self.next()?;
        Ok(name)
    }

    /// A character by itself or by its name.
    fn collating(&mut self) -> Result<u32, Fault> {
        let name = self.element_name()?;
        let mut characters = name.chars();
        match (characters.next(), characters.next()) {
            (Some(c), None) => Ok(u32::from(c)),
            _ => names::character(&name).ok_or(Fault::Collating),
        }
    }
}

fn pair(left: Node, right: Node, flags: u8) -> Node {
    let re = cat(vec![left.re.clone(), right.re.clone()]);
    Node::new(Op::Cat, flags, re, vec![left, right])
}

fn cat(mut parts: Vec<Rc<Re>>) -> Rc<Re> {
    match parts.len() {
        0 => Rc::new(Re::Empty),
        1 => parts.remove(0),
        _ => Rc::new(Re::Cat(parts)),
    }
}

fn repeat(re: Rc<Re>, least: u32, most: Option<u32>) -> Rc<Re> {
    match (least, most) {
        (1, Some(1)) => re,
        (0, Some(0)) => Rc::new(Re::Empty),
        _ => Rc::new(Re::Repeat(re, least, most)),
    }
}

/// An atom that is not plain, so many times.
fn quantified(mut atom: Node, back: Option<usize>, quantity: Quantity) -> Node {
    let (least, most, preferred) = quantity;
    let flags = combine(preferred, atom.flags);
    let own = atom.flags & (LONGER | SHORTER | MIXED);
    if let Some(group) = back {
        atom.op = Op::Back(group, least, most);
        atom.flags |= flags;
        atom.re = repeat(atom.re, least, most);
        return atom;
    }
    if (least, most) == (1, Some(1)) && (preferred == 0 || own == 0 || preferred == own) {
        return atom;
    }
    let re = repeat(atom.re.clone(), least, most);
    if atom.flags & (CAPTURES | REFERS) == 0 {
        return Node::leaf(flags, re);
    }
    // The last time is what the groups hold: the times before are one leaf.
    if least > 0 && atom.flags & REFERS == 0 {
        let before = repeat(atom.re.clone(), least - 1, most.map(|n| n - 1));
        return pair(Node::leaf(preference(flags), before), atom, flags);
    }
    Node::new(Op::Repeat(least, most), flags, re, vec![atom])
}

/// The expression without its constraints: what a reference to it may match.
fn unconstrained(re: &Rc<Re>) -> Rc<Re> {
    let all = |parts: &[Rc<Re>]| parts.iter().map(unconstrained).collect();
    Rc::new(match re.as_ref() {
        Re::Empty | Re::Place(_) | Re::Look(_) => Re::Empty,
        Re::Set(set) => Re::Set(*set),
        Re::Cat(parts) => Re::Cat(all(parts)),
        Re::Alt(parts) => Re::Alt(all(parts)),
        Re::Repeat(part, least, most) => Re::Repeat(unconstrained(part), *least, *most),
    })
}

fn complement(ranges: &Ranges) -> Ranges {
    let mut others = Vec::with_capacity(ranges.len() + 1);
    let mut next = Some(0u32);
    for (from, to) in ranges {
        if let Some(start) = next.filter(|start| start < from) {
            others.push((start, from - 1));
        }
        next = to.checked_add(1);
    }
    others.extend(next.map(|start| (start, u32::MAX)));
    others
}
