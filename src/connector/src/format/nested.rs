//! Columns with values inside their values: arrays, maps and composite types.
//!
//! An array column keeps all elements in one builder and how many there are after each array, so
//! elements are appended as values of a column are; of a composite column every field is a builder
//! of its own. Cutting either back cuts what is inside.
//!
//! Law: arrays have one dimension. PostgreSQL's `int[]` holds any number of them, an array column
//! here does not: a JSON array inside the JSON array is an error, unless the elements are JSONB.

use super::column::{ColumnBuilder, Context, Values};
use super::form::Form;
use super::number;
use super::scan::{Fault, Scanner};
use arrow::array::{ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, FieldRef, Fields};
use tidemark_changelog::maps::{Again, assemble};
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::Column;

/// The values of an array column. `0A000` for elements that cannot be read, and for arrays of
/// arrays.
pub(super) fn list(column: &Column, field: &FieldRef) -> Result<Values> {
    if let DataType::List(_) = field.data_type() {
        return Err(Error::unsupported(format!(
            "column \"{}\": arrays of more than one dimension cannot be read from records",
            column.name
        ))
        .with_hint("Declare the column as JSONB and take it apart in a view."));
    }
    Ok(Values::List {
        items: Box::new(inner(
            column,
            field,
            column.sql_type.trim_end_matches("[]"),
        )?),
        ends: Vec::new(),
        field: field.clone(),
    })
}

/// The values of a column of maps: arrays of their entries.
pub(super) fn map(column: &Column, entries: &FieldRef) -> Result<Values> {
    Ok(Values::List {
        items: Box::new(inner(column, entries, "")?),
        ends: Vec::new(),
        field: entries.clone(),
    })
}

/// Whether what is kept as an array is the entries of maps: no element of an array is always there.
pub(super) fn is_entries(field: &FieldRef) -> bool {
    !field.is_nullable()
}

/// The maps of their entries; of several with one key the last counts, as in an object.
pub(super) fn maps(
    entries: &FieldRef,
    rows: &ArrayRef,
    ends: &mut Vec<i32>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let mut start = 0;
    let row = |(row, end): (usize, i32)| {
        let all = std::mem::replace(&mut start, end)..end;
        let null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        (!null).then(|| all.map(|at| at as u32).collect())
    };
    let all = ends.drain(..).enumerate().map(row).collect();
    let parts = rows.as_struct();
    let to = DataType::Map(entries.clone(), true);
    let made = assemble(&to, parts.column(0), parts.column(1), all, Again::Replaces);
    made.expect("keys that are members of objects are not NULL")
}

/// The values of a composite column. `0A000` for fields that cannot be read.
pub(super) fn composite(column: &Column, fields: &Fields) -> Result<Values> {
    Ok(Values::Struct {
        children: fields
            .iter()
            .map(|field| inner(column, field, ""))
            .collect::<Result<_>>()?,
        fields: fields.clone(),
    })
}

/// A builder inside `column`, under its name.
fn inner(column: &Column, field: &FieldRef, sql_type: &str) -> Result<ColumnBuilder> {
    let inner = Column {
        name: column.name.clone(),
        data_type: field.data_type().clone(),
        nullable: true,
        default: None,
        sql_type: sql_type.to_owned(),
    };
    ColumnBuilder::new(&inner, true)
}

/// The name of the arrays of a type.
pub(super) fn array_name(element: &str) -> &'static str {
    match element {
        "boolean" => "boolean[]",
        "smallint" => "smallint[]",
        "integer" => "integer[]",
        "bigint" => "bigint[]",
        "real" => "real[]",
        "double precision" => "double precision[]",
        "numeric" => "numeric[]",
        "uuid" => "uuid[]",
        "jsonb" => "jsonb[]",
        "bytea" => "bytea[]",
        "date" => "date[]",
        "time" => "time[]",
        "timestamp" => "timestamp[]",
        "timestamp with time zone" => "timestamp with time zone[]",
        "interval" => "interval[]",
        "record" => "record[]",
        _ => "character varying[]",
    }
}

impl ColumnBuilder {
    /// Appends the array at the cursor, its elements in `form`.
    pub(super) fn read_list(
        &mut self,
        form: &Form,
        scanner: &mut Scanner<'_>,
        row: usize,
        depth: u32,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let name = self.type_name();
        let Values::List { items, ends, .. } = &mut self.values else {
            return self.read(scanner, row, depth, context);
        };
        if scanner.peek() != b'[' {
            return Err(number::invalid(name, scanner.raw(depth)?));
        }
        let takes_arrays = matches!(items.values, Values::Jsonb { .. });
        let declared = *form == Form::Declared;
        let mut first = true;
        while scanner.next_item(first)? {
            first = false;
            if scanner.peek() == b'[' && !takes_arrays {
                scanner.skip(depth + 1)?;
                return Err(Fault::value(format!(
                    "an array of type {name} cannot have more than one dimension"
                ))
                .with_state(SqlState::FEATURE_NOT_SUPPORTED));
            }
            let at = items.written;
            if declared {
                items.read(scanner, at, depth + 1, context)?;
            } else {
                items.read_as(form, scanner, at, depth + 1, context)?;
            }
        }
        ends.push(items.written as i32);
        self.written = row + 1;
        Ok(())
    }

    /// Appends the object at the cursor as a map: each member is an entry, its value in `form`.
    pub(super) fn read_entries(
        &mut self,
        form: &Form,
        scanner: &mut Scanner<'_>,
        row: usize,
        depth: u32,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let Values::List { items, ends, .. } = &mut self.values else {
            return self.read(scanner, row, depth, context);
        };
        if scanner.peek() != b'{' {
            return Err(number::invalid("map", scanner.raw(depth)?));
        }
        let at = &mut items.written;
        let Values::Struct { children, .. } = &mut items.values else {
            return Err(Fault::value("a map without entries".to_string()));
        };
        let [key, value] = children.as_mut_slice() else {
            return Err(Fault::value("a map without entries".to_string()));
        };
        let mut first = true;
        while let Some(name) = scanner.next_member(first)? {
            first = false;
            let name = name.resolve(&mut context.scratch);
            key.push_text(*at, name, &mut context.days)?;
            value.read_as(form, scanner, *at, depth + 1, context)?;
            *at += 1;
        }
        ends.push(*at as i32);
        self.written = row + 1;
        Ok(())
    }

    /// Appends the object at the cursor as a composite value. Names match as columns' names do;
    /// a field that no member has is NULL.
    pub(super) fn read_fields(
        &mut self,
        forms: &[(String, usize, Form)],
        scanner: &mut Scanner<'_>,
        row: usize,
        depth: u32,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let Values::Struct { children, .. } = &mut self.values else {
            return self.read(scanner, row, depth, context);
        };
        if scanner.peek() != b'{' {
            return Err(number::invalid("record", scanner.raw(depth)?));
        }
        let mut first = true;
        while let Some(name) = scanner.next_member(first)? {
            first = false;
            let resolved = name.resolve(&mut context.scratch);
            let exact = forms.iter().find(|(name, ..)| name == resolved);
            let loose = || {
                let mut same = forms.iter();
                same.find(|(name, ..)| name.eq_ignore_ascii_case(resolved))
            };
            match exact.or_else(loose) {
                Some((_, at, _)) if exact.is_none() && children[*at].written > row => {
                    scanner.skip(depth + 1)?
                }
                Some((name, at, form)) => {
                    let child = &mut children[*at];
                    child.truncate(row);
                    child
                        .read_as(form, scanner, row, depth + 1, context)
                        .map_err(|fault| fault.of_field(name))?;
                }
                None => scanner.skip(depth + 1)?,
            }
        }
        for child in children.iter_mut().filter(|child| child.written <= row) {
            child.push_null(row);
        }
        self.written = row + 1;
        Ok(())
    }
}
