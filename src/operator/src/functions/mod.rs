//! The scalar functions: DataFusion's built-in ones, and PostgreSQL's where those are missing or
//! answer differently. The planner, the streaming evaluator and the ad-hoc engine all register
//! exactly this list, so that a name means one function everywhere.

mod arguments;
mod array;
mod bounded;
mod bytea;
mod casts;
mod chars;
mod definition;
mod digests;
mod extremes;
mod float;
mod frames;
mod integers;
mod json;
mod json_paths;
mod json_rows;
mod keyed;
mod maps;
mod math;
mod moment;
mod number_format;
mod numeric;
mod quantified;
mod records;
mod regex;
mod repeated;
mod room;
mod string;
mod strings;
#[cfg(test)]
mod tests;
pub mod text;
mod time;
mod united;
mod uuids;
mod volatile;

pub use bounded::{BYTES_MAX, begin_call, check_bytes, column_bytes, is_too_large, within};
pub use casts::{cast_array, read_texts};
pub use chars::{limited, padded};
use datafusion_expr::ScalarUDF;
pub use definition::{call_name, wanted};
pub use maps::read_maps;
pub use moment::rounded_to;
pub use records::parts_of_text;
pub use room::{Room, take_room, with_room};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use united::united;

/// Every scalar function, each once. Ours take the place of built-in ones of the same name.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    registry().functions.clone()
}

/// The function called `name` (in lower case) or that has it as an alias.
pub fn lookup(name: &str) -> Option<Arc<ScalarUDF>> {
    registry().by_name.get(name).cloned()
}

struct Registry {
    functions: Vec<Arc<ScalarUDF>>,
    by_name: HashMap<String, Arc<ScalarUDF>>,
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut by_name = HashMap::new();
        let mut functions: Vec<Arc<ScalarUDF>> = Vec::new();
        // Later entries take over the names of earlier ones; a built-in function that has lost its
        // own name is dropped.
        for function in datafusion_functions::all_default_functions()
            .into_iter()
            .chain(own())
            .chain(volatile::functions())
            .map(numeric::aware)
            .map(united)
        {
            for name in std::iter::once(function.name())
                .chain(function.aliases().iter().map(String::as_str))
            {
                by_name.insert(name.to_string(), function.clone());
            }
            functions.retain(|f| {
                f.name() != function.name() && !function.aliases().iter().any(|a| a == f.name())
            });
            functions.push(function);
        }
        Registry { functions, by_name }
    })
}

fn own() -> impl Iterator<Item = Arc<ScalarUDF>> {
    [
        array::definitions(),
        time::definitions(),
        string::definitions(),
        math::definitions(),
        float::definitions(),
        regex::definitions(),
        bytea::definitions(),
        integers::definitions(),
        strings::definitions(),
        casts::definitions(),
        chars::definitions(),
        json::definitions(),
        json_paths::definitions(),
        json_rows::definitions(),
        moment::definitions(),
        number_format::definitions(),
        numeric::definitions(),
        keyed::definitions(),
        frames::definitions(),
        quantified::definitions(),
        maps::definitions(),
        records::definitions(),
        digests::definitions(),
        repeated::definitions(),
    ]
    .into_iter()
    .flatten()
    .map(|d| Arc::new(d.function()))
}
