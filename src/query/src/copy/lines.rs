//! COPY's two formats: a value as a field, and the client's bytes as lines of fields.
//!
//! Text: tab between columns, `\N` for NULL, backslash escapes. CSV: quotes doubled, an unquoted
//! empty field is NULL. Lines are split in [`tidemark_connector::copy`].

use super::options::{CopyOptions, Header};
use bytes::{BufMut, BytesMut};
use tidemark_common::Result;
use tidemark_connector::copy::Splitter as LineSplitter;
pub use tidemark_connector::copy::{Lines, bad_format};
use tidemark_node::check_write_bytes;

/// Appends a value as a field; `forced`: in CSV within quotes, whatever it is.
pub fn put_field(value: &[u8], options: &CopyOptions, forced: bool, out: &mut BytesMut) {
    if options.csv {
        // A line of `\.` alone would be the end.
        let quoted = forced
            || value == options.null.as_bytes()
            || value == b"\\."
            || value.iter().any(|b| {
                *b == options.delimiter || *b == options.quote || matches!(b, b'\n' | b'\r')
            });
        if !quoted {
            out.put_slice(value);
            return;
        }
        out.put_u8(options.quote);
        for b in value {
            if *b == options.quote || *b == options.escape {
                out.put_u8(options.escape);
            }
            out.put_u8(*b);
        }
        out.put_u8(options.quote);
        return;
    }
    for b in value {
        match b {
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            8 => out.put_slice(b"\\b"),
            11 => out.put_slice(b"\\v"),
            12 => out.put_slice(b"\\f"),
            b if *b == options.delimiter => {
                out.put_u8(b'\\');
                out.put_u8(*b);
            }
            b => out.put_u8(*b),
        }
    }
}

/// Splits the client's bytes into lines of fields, part by part, without the line of names.
pub struct Splitter {
    options: CopyOptions,
    lines: LineSplitter,
    /// What is still to be done with the first line.
    header: Header,
}

impl Splitter {
    /// Nothing has come yet.
    pub fn new(options: CopyOptions) -> Splitter {
        Splitter {
            header: options.header,
            lines: LineSplitter::new(options.line_format()),
            options,
        }
    }

    /// Bytes came: the lines that are complete, when there are enough of them. `54000` for a line
    /// that is longer than all that may be written.
    pub fn add(&mut self, bytes: &[u8]) -> Result<Lines> {
        check_write_bytes(self.lines.held_bytes() + bytes.len())?;
        let lines = self.lines.add(bytes)?;
        without_names(&mut self.header, &self.options, lines)
    }

    /// Nothing more will come: the rest.
    pub fn finish(mut self) -> Result<Lines> {
        let lines = self.lines.finish()?;
        without_names(&mut self.header, &self.options, lines)
    }
}

/// The lines without that of the names, if it is among them.
fn without_names(header: &mut Header, options: &CopyOptions, mut lines: Lines) -> Result<Lines> {
    if *header != Header::No && !lines.is_empty() {
        if std::mem::replace(header, Header::No) == Header::Match {
            options.check_header(&lines.line(0))?;
        }
        lines.drop_first();
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_common::SqlState;

    #[test]
    fn the_line_of_names_is_skipped_and_no_line_is_endless() {
        let options = CopyOptions {
            csv: true,
            delimiter: b',',
            header: Header::Yes,
            ..CopyOptions::default()
        };
        let mut splitter = Splitter::new(options);
        assert!(splitter.add(b"a,b\n1,").unwrap().is_empty());
        let lines = splitter.finish().unwrap();
        assert_eq!(lines.line(0), [Some("1"), Some("")]);
        assert_eq!(lines.len(), 1);
        let mut splitter = Splitter::new(CopyOptions::default());
        let many = vec![b'x'; tidemark_control::entry::WRITE_BYTES_MAX + 1];
        let error = splitter.add(&many).map(drop).unwrap_err();
        assert_eq!(error.state(), SqlState("54000"));
    }
}
