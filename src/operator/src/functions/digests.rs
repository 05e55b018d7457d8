//! `md5` and the SHA-2 family. A value is read in stretches, between which it is looked whether
//! anybody still waits.

use super::arguments::{Byteas, Takes, Texts, byteas, taken, texts};
use super::definition::*;
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};
use md5::{Digest, Md5};
use ring::digest::{Algorithm, Context, SHA256, SHA384, SHA512};
use std::fmt::Write;
use std::sync::Arc;

/// Bytes of a stretch.
const STRETCH: usize = 1 << 20;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let sha = |name, evaluate| Definition {
        name,
        aliases: &[],
        takes: |t| taken(t, 1, &[Takes::Bytea]),
        returns: |_| DataType::Binary,
        evaluate,
    };
    vec![
        Definition {
            name: "md5",
            aliases: &[],
            takes: |types| match types {
                [t] if is_text(t) => Some(vec![DataType::Utf8]),
                [DataType::Binary] => Some(vec![DataType::Binary]),
                _ => None,
            },
            returns: |_| DataType::Utf8,
            evaluate: md5,
        },
        sha("sha224", |a| {
            built_in(a, datafusion_functions::crypto::sha224)
        }),
        sha("sha256", |a| sha2(a, &SHA256)),
        sha("sha384", |a| sha2(a, &SHA384)),
        sha("sha512", |a| sha2(a, &SHA512)),
    ]
}

/// Reads all of a value.
fn read(bytes: &[u8], mut update: impl FnMut(&[u8])) -> Result<()> {
    for stretch in bytes.chunks(STRETCH) {
        wanted()?;
        update(stretch);
    }
    Ok(())
}

fn md5(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let write = |bytes: Option<&[u8]>, out: &mut String| {
        let Some(bytes) = bytes else {
            return Ok(false);
        };
        let mut digest = Md5::new();
        read(bytes, |part| digest.update(part))?;
        for byte in digest.finalize() {
            // A string takes everything.
            let _ = write!(out, "{byte:02x}");
        }
        Ok(true)
    };
    if args.args[0].data_type() == DataType::Binary {
        let given = Byteas::of(args, 0)?;
        return texts(args, |row, out| write(given.get(row), out));
    }
    let given = Texts::of(args, 0)?;
    texts(args, |row, out| {
        write(given.get(row).map(str::as_bytes), out)
    })
}

fn sha2(args: &ScalarFunctionArgs, algorithm: &'static Algorithm) -> Result<ColumnarValue> {
    let given = Byteas::of(args, 0)?;
    byteas(args, |row, out| {
        let Some(bytes) = given.get(row) else {
            return Ok(false);
        };
        let mut digest = Context::new(algorithm);
        read(bytes, |part| digest.update(part))?;
        out.extend_from_slice(digest.finish().as_ref());
        Ok(true)
    })
}

/// DataFusion's.
fn built_in(args: &ScalarFunctionArgs, inner: fn() -> Arc<ScalarUDF>) -> Result<ColumnarValue> {
    let bytes = super::cast_array(&column(args, 0)?, &DataType::Binary)?;
    let mut args = args.clone();
    args.args[0] = result(&args, bytes)?;
    inner().invoke_with_args(args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_digest_ends_behind_the_stretch_in_which_it_is_told() {
        let (stop, mut seen) = (Arc::new(AtomicBool::new(false)), 0);
        let bytes = vec![0; 5 * STRETCH];
        let told = stop.clone();
        let update = |part: &[u8]| {
            seen += part.len();
            told.store(seen == 2 * STRETCH, Ordering::Relaxed);
        };
        let ended = tidemark_common::interruptible(stop, || read(&bytes, update));
        let message = ended.unwrap_err().to_string();
        assert!(message.contains("canceling statement"), "{message}");
        assert_eq!(seen, 2 * STRETCH);
    }
}
