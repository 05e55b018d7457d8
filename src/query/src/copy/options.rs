//! What the options of a COPY say, held against PostgreSQL's rules.

use super::lines::bad_format;
use tidemark_common::{Error, Result, SqlState};
use tidemark_connector::copy::LineFormat;
use tidemark_planner::statement::{Copy, CopyOption, CopyValue};

/// Options of COPY.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// CSV instead of text.
    pub csv: bool,
    /// Between columns.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// Whether a line of names comes first.
    pub header: Header,
    /// CSV's quote.
    pub quote: u8,
    /// What stands before a quote within quotes.
    pub escape: u8,
    /// Columns that are quoted whatever they hold.
    pub force_quote: Forced,
    /// Columns in which nothing is NULL.
    pub force_not_null: Forced,
    /// Columns in which NULL may be quoted.
    pub force_null: Forced,
    /// The columns' names, which `HEADER match` wants.
    pub(super) names: Vec<String>,
}

/// The line of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// There is none.
    No,
    /// It is sent, or skipped.
    Yes,
    /// It has to be the columns' names.
    Match,
}

/// Columns that an option names.
#[derive(Clone, Debug, Default)]
pub struct Forced {
    asked: Option<CopyValue>,
    /// By position; what is beyond is not named.
    columns: Vec<bool>,
}

impl Forced {
    /// Whether the option names the column.
    pub fn has(&self, column: usize) -> bool {
        self.columns.get(column).copied().unwrap_or(false)
    }

    /// The option as it is when these columns are named.
    #[cfg(test)]
    pub fn columns<const N: usize>(columns: [bool; N]) -> Forced {
        Forced {
            asked: None,
            columns: columns.into(),
        }
    }

    fn settle(&mut self, names: &[&str]) -> Result<()> {
        self.columns = match &self.asked {
            None => Vec::new(),
            Some(CopyValue::Columns(asked)) => {
                if let Some(unknown) = asked.iter().find(|name| !names.contains(&name.as_str())) {
                    let message = format!("column \"{unknown}\" does not exist");
                    return Err(Error::user(SqlState::UNDEFINED_COLUMN, message));
                }
                let named = |name: &&str| asked.iter().any(|asked| asked == name);
                names.iter().map(named).collect()
            }
            Some(_) => vec![true; names.len()],
        };
        Ok(())
    }
}

impl Default for CopyOptions {
    fn default() -> CopyOptions {
        CopyOptions {
            csv: false,
            delimiter: b'\t',
            null: "\\N".into(),
            header: Header::No,
            quote: b'"',
            escape: b'"',
            force_quote: Forced::default(),
            force_not_null: Forced::default(),
            force_null: Forced::default(),
            names: Vec::new(),
        }
    }
}

/// The options as they are written, by name.
#[derive(Default)]
struct Written<'a> {
    format: Option<&'a CopyOption>,
    delimiter: Option<&'a str>,
    null: Option<&'a str>,
    quote: Option<&'a str>,
    escape: Option<&'a str>,
    header: Option<Header>,
    force_quote: Forced,
    force_not_null: Forced,
    force_null: Forced,
}

impl<'a> Written<'a> {
    fn of(options: &'a [CopyOption]) -> Result<Written<'a>> {
        let mut written = Written::default();
        for (at, option) in options.iter().enumerate() {
            if options[..at].iter().any(|o| o.name == option.name) {
                let error = syntax("conflicting or redundant options");
                return Err(error.at(option.position));
            }
            match option.name.as_str() {
                "format" => written.format = Some(option),
                "delimiter" => written.delimiter = Some(text(option)?),
                "null" => written.null = Some(text(option)?),
                "quote" => written.quote = Some(text(option)?),
                "escape" => written.escape = Some(text(option)?),
                "header" => written.header = Some(header(option)?),
                "force_quote" => written.force_quote = forced(option, true)?,
                "force_not_null" => written.force_not_null = forced(option, false)?,
                "force_null" => written.force_null = forced(option, false)?,
                "freeze" => {}
                "encoding" => encoding(option)?,
                name => {
                    let error = syntax(format!("option \"{name}\" not recognized"));
                    return Err(error.at(option.position));
                }
            }
        }
        Ok(written)
    }
}

impl CopyOptions {
    /// The options of a statement. [`CopyOptions::settle`] tells them the columns.
    ///
    /// Errors: `42601`, `22023` and `0A000` as PostgreSQL has them.
    pub fn of(copy: &Copy) -> Result<CopyOptions> {
        let written = Written::of(&copy.options)?;
        let csv = match written.format {
            Some(format) => csv(format)?,
            None => false,
        };
        let only_csv = [
            ("quote", written.quote.is_some()),
            ("escape", written.escape.is_some()),
            ("force quote", written.force_quote.asked.is_some()),
            ("force not null", written.force_not_null.asked.is_some()),
            ("force null", written.force_null.asked.is_some()),
        ];
        if let Some((what, _)) = only_csv.iter().find(|(_, there)| *there && !csv) {
            return Err(not_so(format!("COPY {what} available only in CSV mode")));
        }
        let (wrong_way, way) = match copy.to {
            true => (&only_csv[3..], "FROM"),
            false => (&only_csv[2..3], "TO"),
        };
        if let Some((what, _)) = wrong_way.iter().find(|(_, there)| *there) {
            let message = format!("COPY {what} only available using COPY {way}");
            return Err(not_so(message));
        }
        if copy.to && written.header == Some(Header::Match) {
            return Err(not_so("cannot use \"match\" with HEADER in COPY TO"));
        }
        let (delimiter, null) = if csv { (",", "") } else { ("\t", "\\N") };
        let quote = one_byte("quote", written.quote.unwrap_or("\""))?;
        let options = CopyOptions {
            csv,
            delimiter: one_byte("delimiter", written.delimiter.unwrap_or(delimiter))?,
            null: written.null.unwrap_or(null).to_string(),
            header: written.header.unwrap_or(Header::No),
            quote,
            escape: match written.escape {
                Some(escape) => one_byte("escape", escape)?,
                None => quote,
            },
            force_quote: written.force_quote,
            force_not_null: written.force_not_null,
            force_null: written.force_null,
            names: Vec::new(),
        };
        options.check()?;
        Ok(options)
    }

    /// How lines are written by them, when the columns are known.
    pub fn line_format(&self) -> LineFormat {
        LineFormat {
            csv: self.csv,
            delimiter: self.delimiter,
            quote: self.quote,
            escape: self.escape,
            null: self.null.clone(),
            force_null: self.force_null.columns.clone(),
            force_not_null: self.force_not_null.columns.clone(),
        }
    }

    /// Holds the characters against each other.
    fn check(&self) -> Result<()> {
        let end = |c: char| c == '\n' || c == '\r';
        let delimiter = char::from(self.delimiter);
        if end(delimiter) {
            return Err(wrong("COPY delimiter cannot be newline or carriage return"));
        }
        if self.null.contains(end) {
            let message = "COPY null representation cannot use newline or carriage return";
            return Err(wrong(message));
        }
        let escapes = delimiter.is_ascii_lowercase() || delimiter.is_ascii_digit();
        if !self.csv && (escapes || delimiter == '\\' || delimiter == '.') {
            return Err(wrong(format!("COPY delimiter cannot be \"{delimiter}\"")));
        }
        if self.csv && self.delimiter == self.quote {
            return Err(wrong("COPY delimiter and quote must be different"));
        }
        if self.null.contains(delimiter) {
            let message = "COPY delimiter must not appear in the NULL specification";
            return Err(not_so(message));
        }
        if self.csv && self.null.contains(char::from(self.quote)) {
            let message = "CSV quote character must not appear in the NULL specification";
            return Err(not_so(message));
        }
        Ok(())
    }

    /// Tells the options what the columns are called. `42703` when one names another.
    pub fn settle(&mut self, names: &[&str]) -> Result<()> {
        self.force_quote.settle(names)?;
        self.force_not_null.settle(names)?;
        self.force_null.settle(names)?;
        if self.header == Header::Match {
            self.names = names.iter().map(ToString::to_string).collect();
        }
        Ok(())
    }

    /// Holds the first line against the columns' names. `22P04` when it is another.
    pub fn check_header(&self, line: &[Option<&str>]) -> Result<()> {
        if line.len() != self.names.len() {
            return Err(bad_format(format!(
                "wrong number of fields in header line: got {}, expected {}",
                line.len(),
                self.names.len()
            )));
        }
        for (at, (got, name)) in line.iter().zip(&self.names).enumerate() {
            if *got == Some(name.as_str()) {
                continue;
            }
            let got = match got {
                Some(got) => format!("\"{got}\""),
                None => format!("null value (\"{}\")", self.null),
            };
            return Err(bad_format(format!(
                "column name mismatch in header line field {}: got {got}, expected \"{name}\"",
                at + 1
            )));
        }
        Ok(())
    }
}

fn text(option: &CopyOption) -> Result<&str> {
    match &option.value {
        CopyValue::Text(text) => Ok(text),
        _ => Err(syntax(format!("{} requires a parameter", option.name))),
    }
}

fn csv(format: &CopyOption) -> Result<bool> {
    let error = match text(format)? {
        "csv" => return Ok(true),
        "text" => return Ok(false),
        "binary" => not_so("COPY format \"binary\" is not supported").with_hint("Use text or csv."),
        other => wrong(format!("COPY format \"{other}\" not recognized")),
    };
    Err(error.at(format.position))
}

fn header(option: &CopyOption) -> Result<Header> {
    let text = match &option.value {
        CopyValue::None => return Ok(Header::Yes),
        CopyValue::Text(text) => text.to_ascii_lowercase(),
        _ => String::new(),
    };
    match text.as_str() {
        "1" | "true" | "on" => Ok(Header::Yes),
        "0" | "false" | "off" => Ok(Header::No),
        "match" => Ok(Header::Match),
        _ => Err(syntax("header requires a Boolean value or \"match\"")),
    }
}

fn forced(option: &CopyOption, all: bool) -> Result<Forced> {
    match &option.value {
        CopyValue::Columns(_) => {}
        CopyValue::All if all => {}
        _ => {
            let message = format!(
                "argument to option \"{}\" must be a list of column names",
                option.name
            );
            return Err(wrong(message).at(option.position));
        }
    }
    Ok(Forced {
        asked: Some(option.value.clone()),
        columns: Vec::new(),
    })
}

/// Text is UTF-8 here: another encoding would be read wrongly.
fn encoding(option: &CopyOption) -> Result<()> {
    let name = text(option)?.to_ascii_lowercase();
    match name.replace(['-', '_'], "").as_str() {
        "utf8" | "unicode" | "sqlascii" => Ok(()),
        _ => {
            let message = format!("COPY with encoding \"{name}\" is not supported");
            Err(not_so(message).with_hint("Send UTF-8.").at(option.position))
        }
    }
}

fn one_byte(what: &str, text: &str) -> Result<u8> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(not_so(format!(
            "COPY {what} must be a single one-byte character"
        ))),
    }
}

fn syntax(message: impl Into<String>) -> Error {
    Error::user(SqlState::SYNTAX_ERROR, message)
}

fn wrong(message: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_PARAMETER, message)
}

fn not_so(message: impl Into<String>) -> Error {
    Error::unsupported(message)
}
