//! Values in a form into column builders.
//!
//! Law: what a column gets is what PostgreSQL would make of the value that the form means: of a
//! moment a date, a time or a timestamp, in text columns its text; of bytes their `\x` text, of a
//! decimal its digits. Columns of numbers get a moment's number as it is. A pair that PostgreSQL
//! has no cast for is an error of the column. JSONB gets what `to_jsonb` would make of the value.

use super::LIMIT_EXCEEDED;
use super::base64::{self, Alphabet};
use super::column::{ColumnBuilder, Context, TextForm, Values, hex_text, push_bytea, read_integer};
use super::connect_encode::{DEBEZIUM_INFINITY, DEBEZIUM_MINUS_INFINITY};
use super::datetime;
use super::form::{Form, Moment, Unit};
use super::number;
use super::scan::{Fault, Scanner};
use arrow::datatypes::IntervalMonthDayNano;
use tidemark_values::jsonb::{self, Builder};
use tidemark_values::moment;
use tidemark_values::numeric::Numeric;

/// The infinities of timestamps that are counted in milliseconds.
const MILLIS_INFINITY: i64 = DEBEZIUM_INFINITY / 1_000;
const MILLIS_MINUS_INFINITY: i64 = DEBEZIUM_MINUS_INFINITY / 1_000;

/// How the texts begin that it writes for them with a zone.
const ZONED_INFINITY: &str = "+292278994-";
const ZONED_MINUS_INFINITY: &str = "-292275055-";

impl ColumnBuilder {
    /// Appends the JSON value at the cursor, of row `row`, in `form`; else as [`Self::read`].
    pub fn read_as(
        &mut self,
        form: &Form,
        scanner: &mut Scanner<'_>,
        row: usize,
        depth: u32,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let first = scanner.peek();
        if first == b'n' {
            return self.read(scanner, row, depth, context);
        }
        let is_string = first == b'"';
        match (form, &self.values) {
            (Form::Embedded(inner), Values::Text { .. }) => {
                self.read_as(inner, scanner, row, depth, context)
            }
            (Form::Embedded(inner), _) if is_string => {
                self.read_embedded(inner, scanner, row, context)
            }
            (Form::Embedded(inner), _) => self.read_as(inner, scanner, row, depth, context),
            (_, Values::Jsonb { .. }) if !form.is_plain() => {
                self.read_jsonb(form, scanner, row, depth, context)
            }
            (Form::Array(items), Values::List { .. }) => {
                self.read_list(items, scanner, row, depth, context)
            }
            (Form::Entries(values), Values::List { .. }) => {
                self.read_entries(values, scanner, row, depth, context)
            }
            (Form::Fields(forms), Values::Struct { .. }) => {
                self.read_fields(forms, scanner, row, depth, context)
            }
            (Form::Moment(moment), _) if first == b'-' || first.is_ascii_digit() => {
                self.read_moment(*moment, scanner, row, depth, context)
            }
            (
                Form::Year,
                Values::Date(_) | Values::Time(_) | Values::Timestamp { .. } | Values::Interval(_),
            ) if !is_string => Err(number::invalid(self.type_name(), scanner.raw(depth)?)),
            (Form::Zoned, Values::Timestamp { .. }) if is_string => {
                self.read_zoned(scanner, row, context)
            }
            (Form::Bytes(_) | Form::Hex | Form::Bits(_), _) if is_string => {
                self.read_bytes(form, scanner, row, context)
            }
            (Form::Decimal(_) | Form::DecimalOrText(_), _) if is_string || first == b'{' => {
                self.read_decimal(form, scanner, row, depth, context)
            }
            _ => self.read(scanner, row, depth, context),
        }
    }

    /// A string's text is JSON.
    fn read_embedded(
        &mut self,
        form: &Form,
        scanner: &mut Scanner<'_>,
        row: usize,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let mut scratch = std::mem::take(&mut context.scratch);
        let text = scanner.string()?.resolve(&mut scratch);
        let mut inner = Scanner::new(text);
        inner.blanks();
        let result = match &mut self.values {
            // A JSON null in a text is a value of JSONB.
            Values::Jsonb { data, ends } if form.is_plain() || inner.peek() == b'n' => {
                number::json(text, &mut context.json, data).map(|()| {
                    ends.push(data.len() as i32);
                    self.written = row + 1;
                })
            }
            _ => self
                .read_as(form, &mut inner, row, 0, context)
                .and_then(|()| inner.end())
                .map_err(|fault| match fault.is_syntax() {
                    true => number::invalid("json", text),
                    false => fault,
                }),
        };
        context.scratch = scratch;
        result
    }

    fn read_moment(
        &mut self,
        moment: Moment,
        scanner: &mut Scanner<'_>,
        row: usize,
        depth: u32,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let type_name = match &self.values {
            Values::Date(_)
            | Values::Time(_)
            | Values::Timestamp { .. }
            | Values::Interval(_)
            | Values::Text {
                form: TextForm::Varchar(_),
                ..
            } => self.type_name(),
            _ => return self.read(scanner, row, depth, context),
        };
        let start = scanner.pos();
        let count = read_integer(scanner, type_name)?;
        let out_of_range = |name| number::out_of_range(name, &count.to_string());
        let mismatch = |text| Err(number::invalid(type_name, text));
        match (&mut self.values, moment) {
            (Values::Timestamp { values, .. }, Moment::Timestamp(unit)) => {
                values.push(timestamp_of(unit, count).ok_or_else(|| out_of_range("timestamp"))?)
            }
            (Values::Timestamp { values, .. }, Moment::Date) => {
                let day = datetime::day_of_number(count).ok_or_else(|| out_of_range("date"))?;
                values.push(i64::from(day) * datetime::DAY_US);
            }
            (Values::Date(values), Moment::Date) => {
                values.push(datetime::date_of_number(count).ok_or_else(|| out_of_range("date"))?)
            }
            (Values::Date(values), Moment::Timestamp(unit)) => {
                let micros = timestamp_of(unit, count).ok_or_else(|| out_of_range("timestamp"))?;
                values.push(moment::timestamp_to_date(micros));
            }
            (Values::Time(values), Moment::Time(unit)) => {
                values.push(time_of(unit, count).ok_or_else(|| out_of_range("time"))?)
            }
            (Values::Time(values), Moment::Timestamp(unit)) => {
                let micros = timestamp_of(unit, count).ok_or_else(|| out_of_range("timestamp"))?;
                let Some(time) = moment::timestamp_to_time(micros) else {
                    return self.push_given_null(row);
                };
                values.push(time);
            }
            (Values::Interval(values), Moment::Time(unit) | Moment::Duration(unit)) => {
                values.push(interval_of(unit, count)?)
            }
            (Values::Text { .. }, _) => {
                let Context { bytes, days, .. } = context;
                bytes.clear();
                write_moment(moment, count, b' ', bytes)?;
                let text = std::str::from_utf8(bytes).expect("moments print as ASCII");
                return self.push_text(row, text, days);
            }
            _ => return mismatch(scanner.since(start)),
        }
        self.written = row + 1;
        Ok(())
    }

    fn read_zoned(
        &mut self,
        scanner: &mut Scanner<'_>,
        row: usize,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let Context { scratch, days, .. } = context;
        let text = scanner.string()?.resolve(scratch);
        let text = match text {
            _ if text.starts_with(ZONED_INFINITY) => "infinity",
            _ if text.starts_with(ZONED_MINUS_INFINITY) => "-infinity",
            _ => text.strip_prefix('+').unwrap_or(text),
        };
        match before_christ(text) {
            Some(text) => self.push_text(row, &text, days),
            None => self.push_text(row, text, days),
        }
    }

    /// A string is bytes, or bits.
    fn read_bytes(
        &mut self,
        form: &Form,
        scanner: &mut Scanner<'_>,
        row: usize,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let type_name = self.type_name();
        let Context {
            scratch,
            bytes,
            days,
            ..
        } = context;
        let text = scanner.string()?.resolve(scratch);
        bytes.clear();
        decode(form, text, bytes)?;
        let printed = match (&mut self.values, form) {
            (Values::Bytes { data, ends }, _) => {
                data.extend_from_slice(bytes);
                ends.push(data.len() as i32);
                self.written = row + 1;
                return Ok(());
            }
            (Values::Boolean(_), Form::Bits(None | Some(1))) => bits_text(bytes, Some(1)),
            (Values::Int16(_) | Values::Int32(_) | Values::Int64(_), Form::Bits(_)) => {
                let mut value = [0; 8];
                let (low, high) = bytes.split_at(bytes.len().min(8));
                value[..low.len()].copy_from_slice(low);
                if high.iter().any(|byte| *byte != 0) {
                    return Err(number::out_of_range(type_name, &bits_text(bytes, None)));
                }
                u64::from_le_bytes(value).to_string()
            }
            (Values::Uuid(_), Form::Bytes(_) | Form::Hex) => {
                return match bytes.len() {
                    16 => self.push_text(row, &hex_text(bytes)[2..], days),
                    _ => self.push_text(row, text, days),
                };
            }
            (Values::Text { .. }, Form::Bits(length)) => bits_text(bytes, *length),
            (Values::Text { .. }, _) => hex_text(bytes),
            _ => return Err(number::invalid(type_name, text)),
        };
        self.push_text(row, &printed, days)?;
        self.check_size()
    }

    fn read_decimal(
        &mut self,
        form: &Form,
        scanner: &mut Scanner<'_>,
        row: usize,
        depth: u32,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let Context {
            scratch,
            bytes,
            days,
            ..
        } = context;
        let scale = match unscaled(form, scanner, depth, scratch, bytes)? {
            Unscaled::Of(scale) => scale,
            Unscaled::Text(text) => return self.push_text(row, text, days),
        };
        match (&mut self.values, number::small(bytes)) {
            (
                Values::Decimal {
                    values,
                    precision,
                    scale: own,
                },
                Some(value),
            ) if i32::from(*own) == scale
                && value.unsigned_abs() < 10u128.pow(u32::from(*precision)) =>
            {
                values.push(value);
                self.written = row + 1;
                return Ok(());
            }
            (Values::Numeric { data, ends }, Some(value)) => {
                let value = Numeric::from_i128(value, scale)
                    .map_err(|_| number::out_of_range("numeric", &value.to_string()))?;
                value.encode(data);
                ends.push(data.len() as i32);
                self.written = row + 1;
                return Ok(());
            }
            _ => {}
        }
        let mut text = String::new();
        number::unscaled_text(bytes, scale, &mut text).ok_or_else(no_decimal)?;
        self.push_text(row, &text, days)?;
        self.check_size()
    }

    fn read_jsonb(
        &mut self,
        form: &Form,
        scanner: &mut Scanner<'_>,
        row: usize,
        depth: u32,
        context: &mut Context,
    ) -> Result<(), Fault> {
        let Values::Jsonb { data, ends } = &mut self.values else {
            return self.read(scanner, row, depth, context);
        };
        let mut builder = std::mem::take(&mut context.json);
        builder.clear();
        let result = put(&mut builder, form, scanner, depth, context);
        if result.is_ok() {
            builder.finish_to(data);
            ends.push(data.len() as i32);
            self.written = row + 1;
        }
        context.json = builder;
        result?;
        self.check_size()
    }

    /// Texts of a value may be longer than its record: a column's offsets have 31 bits.
    fn check_size(&self) -> Result<(), Fault> {
        match &self.values {
            Values::Text { data, .. } if data.len() > i32::MAX as usize => Err(too_large()),
            Values::Jsonb { data, .. } | Values::Numeric { data, .. }
                if data.len() > i32::MAX as usize =>
            {
                Err(too_large())
            }
            _ => Ok(()),
        }
    }
}

/// PostgreSQL's text of a moment in a year of ISO 8601 before the year 1, where 0 is 1 BC.
fn before_christ(text: &str) -> Option<String> {
    let (year, rest) = match text.strip_prefix('-') {
        Some(text) => text.split_once('-')?,
        None => text.split_once('-').filter(|(year, _)| *year == "0000")?,
    };
    let year: u32 = year.parse().ok()?;
    Some(format!("{:04}-{rest} BC", year.checked_add(1)?))
}

#[cold]
fn too_large() -> Fault {
    Fault::value("the values of a batch are too large").with_state(LIMIT_EXCEEDED)
}

#[cold]
fn no_decimal() -> Fault {
    Fault::value("a decimal in base64 has no bytes, or a scale beyond all numerics")
}

/// Microseconds since 1970-01-01, with Debezium's infinities; `None` beyond PostgreSQL's range.
#[inline]
fn timestamp_of(unit: Unit, count: i64) -> Option<i64> {
    match (unit, count) {
        (Unit::Micros, DEBEZIUM_INFINITY) => Some(moment::TIMESTAMP_INFINITY),
        (Unit::Micros, DEBEZIUM_MINUS_INFINITY) => Some(moment::TIMESTAMP_MINUS_INFINITY),
        (Unit::Millis, MILLIS_INFINITY) => Some(moment::TIMESTAMP_INFINITY),
        (Unit::Millis, MILLIS_MINUS_INFINITY) => Some(moment::TIMESTAMP_MINUS_INFINITY),
        _ => datetime::timestamp_of_micros(unit.micros(count)?),
    }
}

/// Microseconds since midnight.
fn time_of(unit: Unit, count: i64) -> Option<i64> {
    let micros = unit.micros(count)?;
    (0..=datetime::DAY_US).contains(&micros).then_some(micros)
}

fn interval_of(unit: Unit, count: i64) -> Result<IntervalMonthDayNano, Fault> {
    let out_of_range = || number::out_of_range("interval", &count.to_string());
    let micros = unit.micros(count).ok_or_else(out_of_range)?;
    datetime::interval_of_micros(micros, &count.to_string())
}

/// Appends a moment as PostgreSQL prints it, `joint` between date and time.
fn write_moment(moment: Moment, count: i64, joint: u8, out: &mut Vec<u8>) -> Result<(), Fault> {
    let out_of_range = |name| move || number::out_of_range(name, &count.to_string());
    match moment {
        Moment::Date => {
            let day = datetime::day_of_number(count).ok_or_else(out_of_range("date"))?;
            moment::push_date(out, day);
        }
        Moment::Time(unit) => {
            moment::push_time(out, time_of(unit, count).ok_or_else(out_of_range("time"))?)
        }
        Moment::Timestamp(unit) => {
            let micros = timestamp_of(unit, count).ok_or_else(out_of_range("timestamp"))?;
            let start = out.len();
            moment::push_timestamp(out, micros);
            if let Some(blank) = out[start..].iter().position(|byte| *byte == b' ') {
                out[start + blank] = joint;
            }
        }
        Moment::Duration(unit) => datetime::write_interval(interval_of(unit, count)?, out),
    }
    Ok(())
}

/// Appends the bytes that a string stands for.
fn decode(form: &Form, text: &str, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    if text.starts_with("\\x") {
        return push_bytea(text, bytes);
    }
    let (name, alphabet) = match form {
        Form::Hex => return push_bytea(&format!("\\x{text}"), bytes),
        Form::Bytes(Alphabet::Url) => ("base64-url-safe", Alphabet::Url),
        _ => ("base64", Alphabet::Standard),
    };
    base64::decode(text.as_bytes(), alphabet, bytes).ok_or_else(|| number::invalid(name, text))
}

/// Bits from the highest to the lowest.
fn bits_text(bytes: &[u8], length: Option<u32>) -> String {
    let length = length.map_or(bytes.len() * 8, |length| length as usize);
    let bit = |at: usize| {
        bytes
            .get(at / 8)
            .is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    };
    (0..length.min(bytes.len() * 8).max(1))
        .rev()
        .map(|at| if bit(at) { '1' } else { '0' })
        .collect()
}

/// What a decimal's value is.
enum Unscaled<'s> {
    /// Bytes of an integer, and this scale.
    Of(i32),
    /// The text of a number.
    Text(&'s str),
}

/// Reads the string or object at the cursor; the integer's bytes go to `bytes`.
fn unscaled<'s, 'a: 's>(
    form: &Form,
    scanner: &mut Scanner<'a>,
    depth: u32,
    scratch: &'s mut String,
    bytes: &mut Vec<u8>,
) -> Result<Unscaled<'s>, Fault> {
    bytes.clear();
    if scanner.peek() == b'{' {
        return variable(scanner, depth, scratch, bytes).map(Unscaled::Of);
    }
    let text = scanner.string()?.resolve(scratch);
    let decoded = base64::decode(text.as_bytes(), Alphabet::Standard, bytes).is_some();
    match *form {
        // This is base64, too.
        Form::DecimalOrText(None) if text == "Infinity" => Ok(Unscaled::Text(text)),
        Form::DecimalOrText(_) if !decoded || bytes.is_empty() => Ok(Unscaled::Text(text)),
        Form::DecimalOrText(_) if number::is_decimal(text) => Err(number::ambiguous(text)),
        _ if !decoded => Err(number::invalid("base64", text)),
        Form::Decimal(Some(scale)) | Form::DecimalOrText(Some(scale)) => Ok(Unscaled::Of(scale)),
        Form::DecimalOrText(None) => Err(number::invalid("numeric", text)),
        _ => Err(Fault::value(format!(
            "the scale of the decimal \"{text}\" is not known: the column needs NUMERIC(p, s)"
        ))),
    }
}

/// Reads `{"scale": s, "value": base64}`.
fn variable(
    scanner: &mut Scanner<'_>,
    depth: u32,
    scratch: &mut String,
    bytes: &mut Vec<u8>,
) -> Result<i32, Fault> {
    let start = scanner.pos();
    let (mut scale, mut decoded) = (None, None);
    let mut first = true;
    while let Some(name) = scanner.next_member(first)? {
        first = false;
        match (name.raw, scanner.peek()) {
            ("scale", b'-' | b'0'..=b'9') => {
                scale = i32::try_from(read_integer(scanner, "integer")?).ok()
            }
            ("value", b'"') => {
                let text = scanner.string()?.resolve(scratch);
                bytes.clear();
                decoded = base64::decode(text.as_bytes(), Alphabet::Standard, bytes);
            }
            _ => scanner.skip(depth + 1)?,
        }
    }
    match (scale, decoded) {
        (Some(scale), Some(())) => Ok(scale),
        _ => Err(number::invalid("numeric", scanner.since(start))),
    }
}

/// Appends the value at the cursor, in `form`, as JSONB. Recursion is as deep as the form.
fn put(
    builder: &mut Builder,
    form: &Form,
    scanner: &mut Scanner<'_>,
    depth: u32,
    context: &mut Context,
) -> Result<(), Fault> {
    let first = scanner.peek();
    let is_string = first == b'"';
    match form {
        _ if first == b'n' => put_plain(builder, scanner, depth, context),
        Form::Embedded(_) if is_string => {
            let text = scanner.string()?.resolve(&mut context.scratch);
            let value = jsonb::parse(text).map_err(|error| number::json_fault(error, text))?;
            told(builder.value(jsonb::Value::new(&value)), text)
        }
        Form::Moment(moment) if !is_string => {
            let count = read_integer(scanner, "bigint")?;
            context.bytes.clear();
            write_moment(*moment, count, b'T', &mut context.bytes)?;
            let text = std::str::from_utf8(&context.bytes).expect("moments print as ASCII");
            told(builder.string(text), text)
        }
        Form::Bytes(_) | Form::Hex | Form::Bits(_) if is_string => {
            let text = scanner.string()?.resolve(&mut context.scratch);
            context.bytes.clear();
            decode(form, text, &mut context.bytes)?;
            let printed = match form {
                Form::Bits(length) => bits_text(&context.bytes, *length),
                _ => hex_text(&context.bytes),
            };
            told(builder.string(&printed), text)
        }
        Form::Decimal(_) | Form::DecimalOrText(_) if is_string || first == b'{' => {
            let Context { scratch, bytes, .. } = context;
            let mut text = String::new();
            match unscaled(form, scanner, depth, scratch, bytes)? {
                Unscaled::Of(scale) => {
                    number::unscaled_text(bytes, scale, &mut text).ok_or_else(no_decimal)?
                }
                Unscaled::Text(number) => text.push_str(number),
            }
            told(builder.number_text(&text), &text)
        }
        Form::Array(items) if first == b'[' => {
            builder.begin_array();
            let mut first = true;
            while scanner.next_item(first)? {
                first = false;
                put(builder, items, scanner, depth + 1, context)?;
            }
            told(builder.end_array(), "")
        }
        Form::Pairs(pair) if first == b'[' => put_pairs(builder, pair, scanner, depth, context),
        Form::Struct(_) | Form::Map(_) if first == b'{' => {
            put_members(builder, form, scanner, depth, context)
        }
        _ => put_plain(builder, scanner, depth, context),
    }
}

/// An array of keys and values in turn.
fn put_pairs(
    builder: &mut Builder,
    pair: &(Form, Form),
    scanner: &mut Scanner<'_>,
    depth: u32,
    context: &mut Context,
) -> Result<(), Fault> {
    builder.begin_array();
    let mut first = true;
    while scanner.next_item(first)? {
        first = false;
        if scanner.peek() != b'[' {
            put_plain(builder, scanner, depth + 1, context)?;
            continue;
        }
        builder.begin_array();
        let mut at = 0;
        while scanner.next_item(at == 0)? {
            let form = if at == 0 { &pair.0 } else { &pair.1 };
            put(builder, form, scanner, depth + 2, context)?;
            at += 1;
        }
        told(builder.end_array(), "")?;
    }
    told(builder.end_array(), "")
}

/// An object whose members have forms by name, or one for all.
fn put_members(
    builder: &mut Builder,
    form: &Form,
    scanner: &mut Scanner<'_>,
    depth: u32,
    context: &mut Context,
) -> Result<(), Fault> {
    builder.begin_object();
    let mut first = true;
    while let Some(name) = scanner.next_member(first)? {
        first = false;
        let name = name.resolve(&mut context.scratch);
        told(builder.key(name), name)?;
        match form {
            Form::Struct(fields) => match fields.iter().find(|(field, _)| field == name) {
                Some((field, form)) => put(builder, form, scanner, depth + 1, context)
                    .map_err(|fault| fault.of_field(field))?,
                None => put_plain(builder, scanner, depth + 1, context)?,
            },
            Form::Map(form) => put(builder, form, scanner, depth + 1, context)?,
            _ => put_plain(builder, scanner, depth + 1, context)?,
        }
    }
    told(builder.end_object(), "")
}

/// Any value as it is.
fn put_plain(
    builder: &mut Builder,
    scanner: &mut Scanner<'_>,
    depth: u32,
    context: &mut Context,
) -> Result<(), Fault> {
    match scanner.peek() {
        b'"' => {
            let text = scanner.string()?.resolve(&mut context.scratch);
            told(builder.string(text), text)
        }
        b'{' | b'[' => {
            let text = scanner.raw(depth)?;
            let value = jsonb::parse(text).map_err(|error| number::json_fault(error, text))?;
            told(builder.value(jsonb::Value::new(&value)), text)
        }
        b'-' | b'0'..=b'9' => {
            let text = scanner.number()?;
            told(builder.number_text(text), text)
        }
        b't' => scanner.literal("true").map(|()| builder.bool(true)),
        b'f' => scanner.literal("false").map(|()| builder.bool(false)),
        _ => scanner.literal("null").map(|()| builder.null()),
    }
}

/// A fault of the value `text` that no JSONB can hold.
fn told(result: tidemark_common::Result<()>, text: &str) -> Result<(), Fault> {
    result.map_err(|error| number::json_fault(error, text))
}
