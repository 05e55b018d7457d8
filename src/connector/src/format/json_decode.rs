//! One JSON object into one row of column builders.
//!
//! Law: a row gets exactly the values that a full parse of the object would give: of a name that
//! occurs twice the last one counts, a name that matches a column exactly goes before one that
//! differs in case, members that no column wants are checked and dropped. If the object is faulty,
//! [`Rows::undo`] leaves no trace of it.
//!
//! Records of a topic mostly look alike, so the reader remembers the last record's *shape*: for its
//! n-th member the bytes from the end of the value before it to its own value (`,"price":`, with
//! whatever blanks the producer writes) and the column that it goes to. A member that matches costs
//! one or two word comparisons; any other is parsed and looked up by name, and takes that place in
//! the shape. A shape is a guess about bytes, never about meaning: forgetting it changes nothing
//! but speed.

use super::column::{ColumnBuilder, Context};
use super::form::{Declarations, Form};
use super::scan::{Detail, Fault, Scanner};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::SqlState;
use tidemark_plan::Column;

/// Where a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// To no column.
    Skip,
    /// To this column; its name matches exactly.
    Exact(u16),
    /// To this column unless the row has its value already; its name differs in case.
    Loose(u16),
    /// To this column, read in this form.
    Formed { column: u16, form: u16, loose: bool },
}

/// A column that members go to.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Its position among the builders.
    pub at: usize,
    /// Its name and type.
    pub column: Column,
    /// What the source says of values without a schema.
    pub declarations: Declarations,
}

/// Members whose separator and name are longer than this are looked up every time.
const PATTERN_MAX: usize = 48;
/// Members remembered.
const SHAPE_MAX: usize = 1024;
/// How many expected members may be missing before the shape is given up for this member.
const LOOK_AHEAD: usize = 3;

/// What stands before the n-th value.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    bytes: [u8; PATTERN_MAX],
    /// Ones where the first 16 bytes count.
    mask: u128,
    len: u8,
    target: Target,
}

impl Pattern {
    fn new(text: &str, target: Target) -> Option<Pattern> {
        let mut bytes = [0; PATTERN_MAX];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        let mask = if text.len() >= 16 {
            u128::MAX
        } else {
            (1 << (8 * text.len())) - 1
        };
        Some(Pattern {
            bytes,
            mask,
            len: text.len() as u8,
            target,
        })
    }

    /// Holds a place for a member that is too long to remember: no text contains these bytes.
    fn never() -> Pattern {
        Pattern {
            bytes: [0xFF; PATTERN_MAX],
            mask: u128::MAX,
            len: 16,
            target: Target::Skip,
        }
    }

    #[inline]
    fn matches(&self, rest: &[u8]) -> bool {
        let len = usize::from(self.len);
        let Some(head) = rest.first_chunk::<16>() else {
            return rest.starts_with(&self.bytes[..len]);
        };
        let expected = u128::from_le_bytes(
            *self
                .bytes
                .first_chunk::<16>()
                .expect("a pattern is longer than 16 bytes"),
        );
        (u128::from_le_bytes(*head) ^ expected) & self.mask == 0
            && (len <= 16 || rest.get(16..len) == Some(&self.bytes[16..len]))
    }
}

/// The rows under construction.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Builders of the wanted columns.
    pub columns: Vec<ColumnBuilder>,
    /// Complete rows.
    pub rows: usize,
    /// Columns that the current row has a value for.
    pub filled: usize,
    /// A value that its column cannot hold becomes NULL and is put down in `faults`, instead of
    /// failing the record.
    pub lenient: bool,
    /// Of the current row: columns whose value could not be read, and why.
    pub faults: Vec<(usize, Detail)>,
    /// Scratch.
    pub context: Context,
}

impl Rows {
    /// Whether the current row has a value for `column`.
    #[inline]
    pub fn has(&self, column: usize) -> bool {
        self.columns[column].written > self.rows
    }

    /// Counts a value of `column` that was appended just now.
    #[inline]
    pub fn count(&mut self) {
        self.filled += 1;
    }

    /// Takes the current row's value of `column` away again.
    #[cold]
    pub fn unset(&mut self, column: usize) {
        self.columns[column].truncate(self.rows);
        self.filled -= 1;
        self.faults.retain(|(at, _)| *at != column);
    }

    /// Handles a value at `start` that `column` cannot hold: NULL takes its place, or the record
    /// fails.
    #[cold]
    #[inline(never)]
    fn fault(
        &mut self,
        scanner: &mut Scanner<'_>,
        start: usize,
        column: usize,
        depth: u32,
        fault: Fault,
    ) -> Result<(), Fault> {
        if !self.lenient || fault.is_syntax() {
            return Err(fault.of_column(column));
        }
        scanner.rewind(start);
        scanner.skip(depth)?;
        self.null_for(column, fault.into_detail());
        Ok(())
    }

    /// Puts NULL in the place of a value of `column` that could not be read.
    #[cold]
    pub fn null_for(&mut self, column: usize, why: Detail) {
        self.columns[column].truncate(self.rows);
        self.columns[column].push_null(self.rows);
        self.filled += 1;
        self.faults.push((column, why));
    }

    /// Reads the value at the cursor into `column`, in `form`.
    pub fn read_as(
        &mut self,
        scanner: &mut Scanner<'_>,
        column: usize,
        form: &Form,
        depth: u32,
    ) -> Result<(), Fault> {
        if self.has(column) {
            self.unset(column);
        }
        let start = scanner.pos();
        let Rows {
            columns,
            rows,
            filled,
            context,
            ..
        } = self;
        match columns[column].read_as(form, scanner, *rows, depth, context) {
            Ok(()) => {
                *filled += 1;
                Ok(())
            }
            Err(fault) => self.fault(scanner, start, column, depth, fault),
        }
    }

    /// Reads the value at the cursor into `column`.
    #[inline]
    fn read(&mut self, scanner: &mut Scanner<'_>, column: usize, depth: u32) -> Result<(), Fault> {
        if self.has(column) {
            self.unset(column);
        }
        let start = scanner.pos();
        let Rows {
            columns,
            rows,
            filled,
            context,
            ..
        } = self;
        match columns[column].read(scanner, *rows, depth, context) {
            Ok(()) => {
                *filled += 1;
                Ok(())
            }
            Err(fault) => self.fault(scanner, start, column, depth, fault),
        }
    }

    /// Fills the columns without a value with NULL, and the row is complete. `strict`: columns that
    /// are NOT NULL must have one.
    #[inline]
    pub fn complete(&mut self, strict: bool) -> Result<(), Fault> {
        if self.filled < self.columns.len() {
            self.fill(strict)?;
        }
        self.filled = 0;
        self.rows += 1;
        Ok(())
    }

    #[inline(never)]
    fn fill(&mut self, strict: bool) -> Result<(), Fault> {
        for (i, column) in self.columns.iter_mut().enumerate() {
            if column.written > self.rows {
                continue;
            }
            if strict && !column.nullable {
                let fault = Fault::value(format!(
                    "no value for column \"{}\", which is NOT NULL",
                    column.name
                ))
                .with_state(SqlState::NOT_NULL_VIOLATION)
                .of_column(i);
                if !self.lenient {
                    return Err(fault);
                }
                self.faults.push((i, fault.into_detail()));
            }
            column.push_null(self.rows);
        }
        Ok(())
    }

    /// Refuses the current row if one of its texts is `text`, which `why` says of its column.
    #[inline]
    pub fn refuse(&self, text: &str, why: &str) -> Result<(), Fault> {
        match self
            .columns
            .iter()
            .position(|column| column.ends_with(text))
        {
            Some(column) if self.has(column) => Err(Fault::value(format!(
                "the value of column \"{}\" {why}",
                self.columns[column].name
            ))
            .with_state(SqlState::FEATURE_NOT_SUPPORTED)
            .of_column(column)),
            _ => Ok(()),
        }
    }

    /// Forgets the row that was begun.
    #[cold]
    pub fn undo(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.rows);
        }
        self.filled = 0;
        self.faults.clear();
    }
}

/// Reads objects whose members go to some of the columns.
#[derive(Debug)]
pub(super) struct ObjectReader {
    targets: Arc<[Wanted]>,
    /// By the member's name: columns of that name, and members that the schema describes.
    exact: HashMap<String, Target>,
    /// By the name in lower case.
    loose: HashMap<String, Target>,
    forms: Vec<Form>,
    shape: Vec<Pattern>,
    scratch: String,
}

impl ObjectReader {
    /// A reader that fills `targets`, of objects with the members that `schema` describes
    /// ([`Form::Declared`] if there is none).
    pub fn new(targets: Arc<[Wanted]>, schema: &Form) -> ObjectReader {
        let mut reader = ObjectReader {
            targets: targets.clone(),
            exact: HashMap::new(),
            loose: HashMap::new(),
            forms: Vec::new(),
            shape: Vec::new(),
            scratch: String::new(),
        };
        for wanted in targets.iter() {
            let name = &wanted.column.name;
            let exact = reader.target(wanted, &Form::Declared, false);
            let loose = reader.target(wanted, &Form::Declared, true);
            reader.exact.insert(name.clone(), exact);
            reader.loose.entry(name.to_lowercase()).or_insert(loose);
        }
        let Form::Struct(fields) = schema else {
            return reader;
        };
        for (name, form) in fields {
            let exact = targets.iter().find(|wanted| wanted.column.name == *name);
            let lower = name.to_lowercase();
            let loose = || {
                let same = |wanted: &&Wanted| wanted.column.name.to_lowercase() == lower;
                targets.iter().find(same)
            };
            if let Some(wanted) = exact.or_else(loose) {
                let target = reader.target(wanted, form, exact.is_none());
                reader.exact.insert(name.clone(), target);
            }
        }
        reader
    }

    /// The columns that it fills.
    pub fn targets(&self) -> Arc<[Wanted]> {
        self.targets.clone()
    }

    /// Where a member goes that `schema` describes and that belongs to `wanted`.
    fn target(&mut self, wanted: &Wanted, schema: &Form, loose: bool) -> Target {
        let column = wanted.at as u16;
        let form = wanted.declarations.bind(schema, &wanted.column);
        if form.is_default_of(&wanted.column.data_type) {
            return if loose {
                Target::Loose(column)
            } else {
                Target::Exact(column)
            };
        }
        self.forms.push(form);
        Target::Formed {
            column,
            form: (self.forms.len() - 1) as u16,
            loose,
        }
    }

    /// Reads the object at the cursor into the current row; `depth` containers are open around it.
    #[inline]
    pub fn read(
        &mut self,
        scanner: &mut Scanner<'_>,
        rows: &mut Rows,
        depth: u32,
    ) -> Result<(), Fault> {
        if scanner.peek() != b'{' {
            return Err(scanner.missing("object"));
        }
        let mut next = 0;
        loop {
            let target = match self.expected(&mut next, scanner) {
                Some(target) => target,
                None => match self.look_up(next, scanner)? {
                    Some(target) => {
                        next += 1;
                        target
                    }
                    None => return Ok(()),
                },
            };
            match target {
                Target::Skip => scanner.skip(depth + 1)?,
                Target::Exact(column) => rows.read(scanner, usize::from(column), depth + 1)?,
                Target::Loose(column) if rows.has(usize::from(column)) => {
                    scanner.skip(depth + 1)?
                }
                Target::Loose(column) => rows.read(scanner, usize::from(column), depth + 1)?,
                Target::Formed { column, loose, .. } if loose && rows.has(usize::from(column)) => {
                    scanner.skip(depth + 1)?
                }
                Target::Formed { column, form, .. } => {
                    let form = &self.forms[usize::from(form)];
                    rows.read_as(scanner, usize::from(column), form, depth + 1)?
                }
            }
        }
    }

    /// Passes the next member's name if the shape foresees it.
    #[inline]
    fn expected(&self, next: &mut usize, scanner: &mut Scanner<'_>) -> Option<Target> {
        let pattern = self.shape.get(*next)?;
        let rest = scanner.rest();
        let target = if pattern.matches(rest) {
            scanner.advance(usize::from(pattern.len));
            *next += 1;
            pattern.target
        } else {
            // The first pattern begins with the brace, the others with the comma: members after a
            // missing first one are looked up.
            let ahead = self.shape.get(*next + 1..).unwrap_or_default();
            let (skipped, pattern) = ahead
                .iter()
                .take(LOOK_AHEAD)
                .enumerate()
                .find(|(_, pattern)| pattern.matches(rest))?;
            scanner.advance(usize::from(pattern.len));
            *next += skipped + 2;
            pattern.target
        };
        // More blanks may stand before this value than did in the pattern's record.
        if scanner.peek() <= b' ' {
            scanner.blanks();
        }
        Some(target)
    }

    /// Parses the next member's name, finds its column and remembers both as member `next`; `None`
    /// at the end of the object.
    #[inline(never)]
    fn look_up(&mut self, next: usize, scanner: &mut Scanner<'_>) -> Result<Option<Target>, Fault> {
        let start = scanner.pos();
        let Some(name) = scanner.next_member(next == 0)? else {
            return Ok(None);
        };
        let target = self.target_of(name.resolve(&mut String::new()));
        let pattern = Pattern::new(scanner.since(start), target).unwrap_or_else(Pattern::never);
        match self.shape.get_mut(next) {
            Some(place) => *place = pattern,
            None if next < SHAPE_MAX => self.shape.push(pattern),
            None => {}
        }
        Ok(Some(target))
    }

    fn target_of(&mut self, name: &str) -> Target {
        if let Some(target) = self.exact.get(name) {
            return *target;
        }
        let folded: &str = if name.is_ascii() {
            self.scratch.clear();
            self.scratch.push_str(name);
            self.scratch.make_ascii_lowercase();
            &self.scratch
        } else {
            self.scratch = name.to_lowercase();
            &self.scratch
        };
        self.loose.get(folded).copied().unwrap_or(Target::Skip)
    }
}
