//! `jsonb`: a JSON value as bytes whose order is PostgreSQL's.
//!
//! # The law
//!
//! `key_of(a).cmp(key_of(b))` (memcmp) is PostgreSQL's `jsonb_cmp` under the collation `C`:
//! Object > Array > Boolean > Number > String > Null; arrays by their number of elements, then
//! element by element; objects by their number of pairs, then key, value, key, value in storage
//! order; strings by bytes; numbers by value; `false < true`. An empty array *at the top* sorts
//! below everything, `null` included (PostgreSQL keeps a scalar as an array of one element and
//! compares the counts first); inside another value it is an ordinary array of no elements.
//!
//! Values that PostgreSQL calls equal have the same key (`1`, `1.0` and `1.00`; objects whatever
//! the order their pairs came in). No key is the beginning of another key, so whole values may be
//! compared too: that is the same order, with ties broken by what only printing needs. Values that
//! print the same are the same bytes.
//!
//! # The format
//!
//! ```text
//! value    := key scales trailer
//! key      := 01                         an empty array at the top
//!           | 02                         null
//!           | 03 utf8 00                 a string; text never holds the byte 00
//!           | 04 number                  see below
//!           | 05 | 06                    false | true
//!           | 07 count key{count}        an array; inside, an empty one is `07 00`
//!           | 08 count (key key){count}  an object; the first of each pair is a string
//! count    := one byte below F8, or F8+n-1 and the n bytes of the count, big end first
//! number   := 80                         zero
//!           | exponent pairs             0.d1 d2 d3.. times ten to the power e, with d1 not 0
//!           | the complement of every byte of the above, where negative
//! exponent := C0+e for e in -32..=30; else E0 (e > 30) or 90 (e < -32) and three bytes, big end
//!             first, of e + 2^23
//! pairs    := two decimal digits at a time, each pair p as 2p+1 where another follows and 2p
//!             where it is the last, without trailing zeros
//! scales   := (delta extra)*             for each number that is not in its shortest form: where
//!             its tag stands in the key (as the distance from the one before, from 0 for the
//!             first), and how many zeros it shows beyond its last digit after the point. Both are
//!             LEB128 numbers.
//! trailer  := the length of `scales` in one byte below FF, or in four bytes (little end first)
//!             and FF
//! ```
//!
//! Objects keep their pairs as PostgreSQL stores them: by length of the key, then by its bytes,
//! each key once (of duplicates the last one counts). A value inside a value is the same bytes as
//! the value alone, but for the empty array, and its entries of `scales` moved: taking one out or
//! putting one in copies bytes.
//!
//! # Depth
//!
//! Text nested more than [`DEPTH_MAX`] levels is refused (54001). A [`Builder`] may nest deeper.
//! Nothing here recurses, so no value overflows the stack.
//!
//! # Damaged bytes
//!
//! Whoever reads bytes that no function here wrote gets an error `XX001` or a wrong value, never a
//! panic.
//!
//! # The type `json`
//!
//! [`validate`] checks text as `json_in` does; the text stays as it came. Its operators `->` and
//! `->>` may parse the text into a [`Value`] and use the ones for `jsonb`. That differs from
//! PostgreSQL in how a nested value prints (PostgreSQL shows the text as it was written, with its
//! spaces, its order of keys, its duplicates and its numbers), and in text that is `json` but not
//! `jsonb` (`\u0000`, lone surrogates, numbers beyond `numeric`).

mod builder;
mod change;
mod contain;
mod format;
mod lexer;
mod number;
mod parse;
mod print;
mod value;

#[cfg(test)]
mod tests;

pub use builder::Builder;
pub use change::{
    concat, delete_index, delete_key, delete_keys, delete_path, insert, set, strip_nulls,
};
pub use contain::{contains, exists, exists_all, exists_any};
pub use format::{compare, key_of};
pub use parse::{DEPTH_MAX, parse, parse_to, validate};
pub use value::{Elements, Kind, Pairs, Value};

/// The elements of a SQL `text[]`; `None` is a SQL NULL.
pub type TextArray<'a> = [Option<&'a str>];
