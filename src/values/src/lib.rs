//! Values of SQL types that Arrow has no type for, each as bytes that an Arrow column of binary
//! values holds, and what PostgreSQL computes with those that it has.
//!
//! PostgreSQL calls values equal that it prints differently (`1.0` and `1.00`). Each form therefore
//! begins with a *key*, whose bytes are equal where the values are and sort as the values do; what
//! only printing needs follows it.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod array;
pub mod bytea;
pub mod exact;
pub mod float;
pub mod float_text;
pub mod jsonb;
pub mod jsonpath;
pub mod letters;
pub mod map;
pub mod moment;
pub mod number_format;
pub mod numeric;
pub mod plain;
pub mod record;
pub mod regex;
pub mod text;
pub mod uuid;
