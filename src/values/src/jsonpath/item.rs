//! What a path meets: values of the document and of the variables where they stand, constants of
//! the path, and what is computed.

use crate::jsonb::{Builder, Kind, Value};
use crate::numeric::Numeric;
use std::cell::OnceCell;
use tidemark_common::{Result, error::Error};

#[derive(Clone, Debug)]
pub(super) enum Item<'a> {
    /// Of a document, of any kind.
    Value(Value<'a>),
    Null,
    Bool(bool),
    Number(Numeric),
    Text(&'a str),
}

impl<'a> Item<'a> {
    pub fn kind(&self) -> Result<Kind> {
        Ok(match self {
            Item::Value(value) => value.kind()?,
            Item::Null => Kind::Null,
            Item::Bool(_) => Kind::Boolean,
            Item::Number(_) => Kind::Number,
            Item::Text(_) => Kind::String,
        })
    }

    /// The array or object that it is.
    pub fn container(&self) -> Result<Option<Value<'a>>> {
        match self {
            Item::Value(value) if !value.kind()?.is_scalar() => Ok(Some(*value)),
            _ => Ok(None),
        }
    }

    /// The array that it is.
    pub fn array(&self) -> Result<Option<Value<'a>>> {
        match self {
            Item::Value(value) if value.kind()? == Kind::Array => Ok(Some(*value)),
            _ => Ok(None),
        }
    }

    /// The object that it is.
    pub fn object(&self) -> Result<Option<Value<'a>>> {
        match self {
            Item::Value(value) if value.kind()? == Kind::Object => Ok(Some(*value)),
            _ => Ok(None),
        }
    }

    pub fn number(&self) -> Result<Option<Numeric>> {
        match self {
            Item::Number(number) => Ok(Some(number.clone())),
            Item::Value(value) if value.kind()? == Kind::Number => {
                let text = value.to_number_text("numeric")?;
                Ok(Some(Numeric::parse(&text)?))
            }
            _ => Ok(None),
        }
    }

    pub fn text(&self) -> Result<Option<&'a str>> {
        match self {
            Item::Text(text) => Ok(Some(text)),
            Item::Value(value) => value.as_str(),
            _ => Ok(None),
        }
    }

    pub fn truth(&self) -> Result<Option<bool>> {
        match self {
            Item::Bool(truth) => Ok(Some(*truth)),
            Item::Value(value) if value.kind()? == Kind::Boolean => value.to_bool().map(Some),
            _ => Ok(None),
        }
    }

    /// Adds it to what is being built.
    pub fn build(&self, builder: &mut Builder) -> Result<()> {
        match self {
            Item::Value(value) => builder.value(*value),
            Item::Null => {
                builder.null();
                Ok(())
            }
            Item::Bool(truth) => {
                builder.bool(*truth);
                Ok(())
            }
            Item::Number(number) => builder.number_text(&number.to_string()),
            Item::Text(text) => builder.string(text),
        }
    }
}

/// Keeps the objects that `.keyvalue()` makes as long as a path is evaluated.
#[derive(Default)]
pub(super) struct Arena {
    first: OnceCell<Box<Cell>>,
    blocks: std::cell::Cell<usize>,
}

/// Cells double in size, so that few stand behind each other.
struct Cell {
    values: Vec<OnceCell<Vec<u8>>>,
    next: OnceCell<Box<Cell>>,
}

impl Cell {
    fn new(size: usize) -> Box<Cell> {
        Box::new(Cell {
            values: (0..size).map(|_| OnceCell::new()).collect(),
            next: OnceCell::new(),
        })
    }
}

impl Arena {
    /// Keeps an encoded value.
    pub fn keep(&self, bytes: Vec<u8>) -> Result<Value<'_>> {
        let mut place = self.blocks.get();
        self.blocks.set(place + 1);
        let mut size = 8;
        let mut cell = self.first.get_or_init(|| Cell::new(size));
        while place >= size {
            place -= size;
            size *= 2;
            cell = cell.next.get_or_init(|| Cell::new(size));
        }
        let slot = cell.values.get(place);
        let kept = slot.map(|slot| slot.get_or_init(|| bytes).as_slice());
        kept.map(Value::new)
            .ok_or_else(|| Error::internal("a generated object has no place"))
    }
}
