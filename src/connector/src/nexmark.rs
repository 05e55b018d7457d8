//! The Nexmark events (Tucker, Tufte, Papadimos, Maier 2002; distributions of the Beam and Flink
//! generators): of every 50 events 1 is a person, 3 are auctions, 46 are bids; half of the bids go
//! to the hot auction, three quarters come from the hot bidder. Event time starts at 2025-01-01 and
//! advances by `nexmark.min.event.gap.in.ns` (10,000 events a second by default).
//!
//! Events are numbered from 0 over all three kinds. A group of 50 lies in one split, group g in
//! split g mod splits, and an offset counts the events of a split: offset i of split s is event `(i
//! / 50 * splits + s) * 50 + i mod 50`. Every field is a function of (seed, event number, field),
//! so an offset means the same row for ever, and a column that nobody reads is never made. Rows are
//! built column by column.

use crate::generator::{Generate, GeneratorSource};
use crate::metrics::SourceMetrics;
use crate::options::Options;
use crate::random::{Field, digits, letters, scale};
use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, TimeUnit};
use std::sync::{Arc, OnceLock};
use tidemark_common::{Error, Result, SplitId, SqlState};
use tidemark_plan::{Column, ConnectorSpec};

const STATES: &[&str] = &["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: &[&str] = &[
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const FIRST: &[&str] = &[
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST: &[&str] = &[
    "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
];
const HOT: &[(&str, char, char)] = &[
    ("Google", 'a', 'q'),
    ("Facebook", 'b', 'p'),
    ("Baidu", 'c', 'w'),
    ("Apple", 'd', 'o'),
];
const BASE_MICROS: i64 = 1_735_689_600_000_000;
const FIRST_ID: u64 = 1000;
const GROUP: u64 = 50;
const CHANNELS: u64 = 10_000;
/// Events until an auction closes, on average.
const AUCTION_EVENTS: u64 = 1666;

/// Which events a source makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1 of 50.
    Person,
    /// 3 of 50.
    Auction,
    /// 46 of 50.
    Bid,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Int,
    Text,
    Time,
}

const PERSON: &[(&str, Type)] = &[
    ("id", Type::Int),
    ("name", Type::Text),
    ("email_address", Type::Text),
    ("credit_card", Type::Text),
    ("city", Type::Text),
    ("state", Type::Text),
    ("date_time", Type::Time),
    ("extra", Type::Text),
];
const AUCTION: &[(&str, Type)] = &[
    ("id", Type::Int),
    ("item_name", Type::Text),
    ("description", Type::Text),
    ("initial_bid", Type::Int),
    ("reserve", Type::Int),
    ("date_time", Type::Time),
    ("expires", Type::Time),
    ("seller", Type::Int),
    ("category", Type::Int),
    ("extra", Type::Text),
];
const BID: &[(&str, Type)] = &[
    ("auction", Type::Int),
    ("bidder", Type::Int),
    ("price", Type::Int),
    ("channel", Type::Text),
    ("url", Type::Text),
    ("date_time", Type::Time),
    ("extra", Type::Text),
];

impl Kind {
    fn fields(self) -> &'static [(&'static str, Type)] {
        match self {
            Kind::Person => PERSON,
            Kind::Auction => AUCTION,
            Kind::Bid => BID,
        }
    }

    /// The events of a group that are of this kind.
    fn events(self) -> std::ops::Range<u64> {
        match self {
            Kind::Person => 0..1,
            Kind::Auction => 1..4,
            Kind::Bid => 4..GROUP,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Person => "person",
            Kind::Auction => "auction",
            Kind::Bid => "bid",
        }
    }
}

/// The options of a Nexmark source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NexmarkOptions {
    /// `nexmark.table.type`.
    pub kind: Kind,
    /// `nexmark.event.num`: events of all three kinds; 0 is endless.
    pub events: u64,
    /// `nexmark.split.num`, 4 by default.
    pub splits: u32,
    /// `nexmark.seed`, 42 by default.
    pub seed: u64,
    /// `nexmark.min.event.gap.in.ns`: event time between two events, 100,000 by default.
    pub gap_ns: u64,
    /// `nexmark.rate`: rows per second over all splits; 0 is as many as possible.
    pub rate: u64,
}

impl NexmarkOptions {
    /// Reads and checks the options.
    pub fn read(spec: &ConnectorSpec) -> Result<NexmarkOptions> {
        let options = Options::of(spec);
        let known = &[
            "nexmark.table.type",
            "nexmark.event.num",
            "nexmark.split.num",
            "nexmark.seed",
            "nexmark.min.event.gap.in.ns",
            "nexmark.rate",
        ];
        options.refuse_unknown(known, &[])?;
        options.required("nexmark.table.type")?;
        let kind = [Kind::Person, Kind::Auction, Kind::Bid]
            [options.choice("nexmark.table.type", &["Person", "Auction", "Bid"])?];
        Ok(NexmarkOptions {
            kind,
            events: options.number("nexmark.event.num", 0, 0..=1 << 50)?,
            splits: options.number("nexmark.split.num", 4, 1..=1024)?,
            seed: options.number("nexmark.seed", 42, 0..=u64::MAX)?,
            gap_ns: options.number(
                "nexmark.min.event.gap.in.ns",
                100_000,
                0..=1_000_000_000_000,
            )?,
            rate: options.number("nexmark.rate", 0, 0..=1_000_000_000)?,
        })
    }
}

/// The columns that a Nexmark source has when its statement names none.
pub fn default_columns(spec: &ConnectorSpec) -> Result<Vec<Column>> {
    let column = |(name, kind): &(&str, Type)| {
        let data_type = match kind {
            Type::Int => DataType::Int64,
            Type::Text => DataType::Utf8,
            Type::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
        };
        Column {
            name: name.to_string(),
            data_type,
            nullable: true,
            default: None,
            sql_type: String::new(),
        }
    };
    Ok(NexmarkOptions::read(spec)?
        .kind
        .fields()
        .iter()
        .map(column)
        .collect())
}

/// Opens a Nexmark source with these columns.
pub fn open(spec: &ConnectorSpec, columns: &[Column]) -> Result<GeneratorSource> {
    let options = NexmarkOptions::read(spec)?;
    let nexmark = Nexmark::new(options, columns)?;
    Ok(GeneratorSource::new(
        Arc::new(nexmark),
        columns.len(),
        options.rate,
        SourceMetrics::new("nexmark", options.kind.name()),
    ))
}

/// A column of the source: which field of the event, as which type.
struct Wanted {
    field: usize,
    arrow: ArrowField,
}

/// Makes the events of one kind.
pub struct Nexmark {
    options: NexmarkOptions,
    columns: Vec<Wanted>,
}

impl Nexmark {
    /// Matches `columns` by name with the fields of the kind of event, and checks their types.
    pub fn new(options: NexmarkOptions, columns: &[Column]) -> Result<Nexmark> {
        let fields = options.kind.fields();
        let names = || {
            fields
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let wanted = columns.iter().map(|column| {
            let Some(field) = fields
                .iter()
                .position(|(name, _)| name.eq_ignore_ascii_case(&column.name))
            else {
                return Err(Error::user(
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "a Nexmark {} has no field \"{}\"",
                        options.kind.name(),
                        column.name
                    ),
                )
                .with_hint(format!("Its fields are: {}.", names())));
            };
            let (fits, sql) = match fields[field].1 {
                Type::Int => (column.data_type == DataType::Int64, "bigint"),
                Type::Text => (
                    matches!(
                        column.data_type,
                        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8
                    ),
                    "varchar",
                ),
                Type::Time => (
                    matches!(
                        column.data_type,
                        DataType::Timestamp(TimeUnit::Microsecond, _)
                    ),
                    "timestamp",
                ),
            };
            if !fits {
                return Err(Error::user(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "column \"{}\" of a Nexmark {} must be of type {sql}",
                        column.name,
                        options.kind.name()
                    ),
                ));
            }
            Ok(Wanted {
                field,
                arrow: ArrowField::new(&column.name, column.data_type.clone(), column.nullable),
            })
        });
        Ok(Nexmark {
            columns: wanted.collect::<Result<_>>()?,
            options,
        })
    }

    /// The numbers of the events at the offsets `from..to` that are of this kind, at most
    /// `rows_max`, and the offset after them.
    fn numbers(&self, split: SplitId, from: i64, to: i64, rows_max: usize) -> (Vec<u64>, i64) {
        let events = self.options.kind.events();
        let (mut at, to) = (from as u64, to as u64);
        let mut numbers = Vec::with_capacity(rows_max);
        while at < to && numbers.len() < rows_max {
            let (group, within) = (at / GROUP, at % GROUP);
            let base = (group * u64::from(self.options.splits) + u64::from(split)) * GROUP;
            let first = within.max(events.start);
            let last = events
                .end
                .min(within + (to - at))
                .min(first + (rows_max - numbers.len()) as u64);
            if first < last {
                numbers.extend(base + first..base + last);
            }
            // A group that is done is passed as a whole, also the events of other kinds at its end.
            at = if last >= events.end || first >= events.end {
                (group + 1) * GROUP
            } else {
                (group * GROUP + last).max(at + 1)
            };
        }
        (numbers, at.min(to) as i64)
    }

    fn random(&self, field: u64) -> Field {
        Field::new(self.options.seed, field)
    }

    fn micros(&self, n: u64) -> i64 {
        BASE_MICROS + (u128::from(n) * u128::from(self.options.gap_ns) / 1000) as i64
    }

    fn column(&self, field: usize, numbers: &[u64]) -> Values {
        if self.options.kind.fields()[field].0 == "date_time" {
            return Values::Time(numbers.iter().map(|n| self.micros(*n)).collect());
        }
        match self.options.kind {
            Kind::Person => self.person(field, numbers),
            Kind::Auction => self.auction(field, numbers),
            Kind::Bid => self.bid(field, numbers),
        }
    }

    fn person(&self, field: usize, numbers: &[u64]) -> Values {
        let pick = |list: &'static [&'static str], bits: u64| {
            list[scale(bits, list.len() as u64) as usize].as_bytes()
        };
        let r = |i: u64| self.random(i);
        match PERSON[field].0 {
            "id" => Values::int(numbers, |n| FIRST_ID + last_person(n)),
            "name" => Values::text(numbers, 16, |out, n| {
                out.extend_from_slice(pick(FIRST, r(0).bits(n)));
                out.push(b' ');
                out.extend_from_slice(pick(LAST, r(1).bits(n)));
            }),
            "email_address" => Values::text(numbers, 24, |out, n| {
                letters(out, r(2).bits(n), 7);
                out.push(b'@');
                letters(out, r(3).bits(n), 5);
                out.extend_from_slice(b".com");
            }),
            "credit_card" => Values::text(numbers, 24, |out, n| {
                let bits = r(4).bits(n);
                for i in 0..4 {
                    if i > 0 {
                        out.push(b' ');
                    }
                    digits(out, (((bits >> (16 * i)) & 0xFFFF) * 10_000) >> 16, 10, 4);
                }
            }),
            "city" => Values::text(numbers, 16, |out, n| {
                out.extend_from_slice(pick(CITIES, r(5).bits(n)))
            }),
            "state" => Values::text(numbers, 2, |out, n| {
                out.extend_from_slice(pick(STATES, r(6).bits(n)))
            }),
            _ => Values::text(numbers, 160, |out, n| pad(out, r(7).bits(n), 70, 200)),
        }
    }

    fn auction(&self, field: usize, numbers: &[u64]) -> Values {
        let r = |i: u64| self.random(i + 16);
        match AUCTION[field].0 {
            "id" => Values::int(numbers, |n| FIRST_ID + last_auction(n)),
            "item_name" => Values::text(numbers, 20, |out, n| {
                sized_letters(out, r(0).bits(n), 10, 10)
            }),
            "description" => Values::text(numbers, 100, |out, n| {
                sized_letters(out, r(1).bits(n), 50, 50)
            }),
            "initial_bid" => Values::int(numbers, |n| price(r(2).bits(n))),
            "reserve" => Values::int(numbers, |n| price(r(2).bits(n)) + price(r(3).bits(n))),
            "expires" => {
                let horizon_ms = (2 * AUCTION_EVENTS * self.options.gap_ns / 1_000_000).max(1);
                Values::Time(
                    numbers
                        .iter()
                        .map(|n| self.micros(*n) + 1000 * (1 + r(4).below(*n, horizon_ms)) as i64)
                        .collect(),
                )
            }
            "seller" => Values::int(numbers, |n| {
                FIRST_ID + hot_or_active(last_person(n), 0, 999, r(5).bits(n))
            }),
            "category" => Values::int(numbers, |n| 10 + r(6).below(n, 5)),
            _ => Values::text(numbers, 420, |out, n| pad(out, r(7).bits(n), 145, 500)),
        }
    }

    fn bid(&self, field: usize, numbers: &[u64]) -> Values {
        let r = |i: u64| self.random(i + 32);
        // Half of the bids come over one of four hot channels.
        let channel = |n| {
            let bits = r(3).bits(n);
            if bits & 1 == 0 {
                CHANNELS + ((bits >> 1) & 3)
            } else {
                scale(bits, CHANNELS)
            }
        };
        match BID[field].0 {
            "auction" => {
                let random = r(0);
                Values::int(numbers, |n| {
                    let (last, bits) = (last_auction(n), random.bits(n));
                    FIRST_ID
                        + if bits & 1 == 0 {
                            last / 100 * 100
                        } else {
                            last.saturating_sub(100) + scale(bits, last.min(100) + 11)
                        }
                })
            }
            "bidder" => {
                let random = r(1);
                Values::int(numbers, |n| {
                    FIRST_ID + hot_or_active(last_person(n), 1, 999, random.bits(n))
                })
            }
            "price" => {
                let random = r(2);
                Values::int(numbers, |n| price(random.bits(n)))
            }
            "channel" => {
                let channels = channels();
                Values::text(numbers, 12, |out, n| {
                    out.extend_from_slice(channels.name(channel(n)))
                })
            }
            "url" => {
                let channels = channels();
                Values::text(numbers, 72, |out, n| {
                    out.extend_from_slice(channels.url(channel(n)))
                })
            }
            _ => {
                let random = r(5);
                Values::text(numbers, 82, |out, n| pad(out, random.bits(n), 32, 100))
            }
        }
    }
}

impl Generate for Nexmark {
    fn splits(&self) -> u32 {
        self.options.splits
    }

    fn end(&self, split: SplitId) -> i64 {
        let (events, splits, split) = (
            self.options.events,
            u64::from(self.options.splits),
            u64::from(split),
        );
        if events == 0 {
            return i64::MAX;
        }
        let groups = events.div_ceil(GROUP);
        let own = (groups + splits - 1 - split) / splits;
        let missing = if own > 0 && (groups - 1) % splits == split {
            groups * GROUP - events
        } else {
            0
        };
        (own * GROUP - missing) as i64
    }

    fn number(&self, split: SplitId, offset: i64) -> u64 {
        let offset = offset as u64;
        (offset / GROUP * u64::from(self.options.splits) + u64::from(split)) * GROUP
            + offset % GROUP
    }

    fn rows(
        &self,
        split: SplitId,
        from: i64,
        to: i64,
        rows_max: usize,
        columns: &[usize],
    ) -> Result<(RecordBatch, i64)> {
        let (numbers, next) = self.numbers(split, from, to, rows_max);
        let (mut fields, mut arrays) = (
            Vec::with_capacity(columns.len()),
            Vec::with_capacity(columns.len()),
        );
        for i in columns {
            let wanted = self
                .columns
                .get(*i)
                .ok_or_else(|| Error::internal(format!("a Nexmark source has no column {i}")))?;
            fields.push(wanted.arrow.clone());
            arrays.push(
                self.column(wanted.field, &numbers)
                    .into_array(wanted.arrow.data_type())?,
            );
        }
        let size = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &size)
            .map_err(|e| Error::internal(e.to_string()))?;
        Ok((rows, next))
    }

    fn numbers(&self, split: SplitId, from: i64, to: i64, rows_max: usize) -> Vec<u64> {
        Nexmark::numbers(self, split, from, to, rows_max).0
    }
}

/// The values of one column.
enum Values {
    Int(Vec<i64>),
    Time(Vec<i64>),
    Text(Vec<i32>, Vec<u8>),
}

impl Values {
    #[inline(always)]
    fn int(numbers: &[u64], value: impl Fn(u64) -> u64) -> Values {
        Values::Int(numbers.iter().map(|n| value(*n) as i64).collect())
    }

    /// Texts of about `width` bytes that `write` appends to one buffer. `write` appends ASCII only.
    #[inline(always)]
    fn text(numbers: &[u64], width: usize, write: impl Fn(&mut Vec<u8>, u64)) -> Values {
        let mut bytes = Vec::with_capacity(numbers.len() * width + 512);
        let mut offsets = Vec::with_capacity(numbers.len() + 1);
        offsets.push(0);
        for n in numbers {
            write(&mut bytes, *n);
            offsets.push(bytes.len() as i32);
        }
        Values::Text(offsets, bytes)
    }

    fn into_array(self, data_type: &DataType) -> Result<ArrayRef> {
        let array: ArrayRef = match self {
            Values::Int(values) => Arc::new(Int64Array::from(values)),
            Values::Time(values) => {
                Arc::new(TimestampMicrosecondArray::from(values).with_data_type(data_type.clone()))
            }
            Values::Text(offsets, bytes) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(
                    StringArray::try_new(offsets, Buffer::from_vec(bytes), None)
                        .map_err(|e| Error::internal(e.to_string()))?,
                )
            }
        };
        if array.data_type() == data_type {
            Ok(array)
        } else {
            arrow::compute::cast(&array, data_type).map_err(|e| Error::internal(e.to_string()))
        }
    }
}

fn last_person(n: u64) -> u64 {
    n / GROUP
}

/// The newest auction at event `n`; 0 at the very first event, which is before any auction.
fn last_auction(n: u64) -> u64 {
    let (group, within) = (n / GROUP, n % GROUP);
    if within < 1 {
        (group * 3).saturating_sub(1)
    } else {
        group * 3 + (within - 1).min(2)
    }
}

/// Three times of four the hot one of the newest hundred (plus `shift`), else any of the newest
/// `window` or one of the ten to come.
#[inline(always)]
fn hot_or_active(last: u64, shift: u64, window: u64, bits: u64) -> u64 {
    if bits & 3 != 0 {
        last / 100 * 100 + shift
    } else {
        last.saturating_sub(window) + scale(bits, last.min(window) + 11)
    }
}

fn sized_letters(out: &mut Vec<u8>, bits: u64, least: usize, spread: u64) {
    letters(
        out,
        bits.rotate_left(17),
        least + scale(bits, spread) as usize,
    );
}

/// Letters that bring a record of `have` bytes to about `want`: the difference, give or take a
/// fifth.
#[inline(always)]
fn pad(out: &mut Vec<u8>, bits: u64, have: usize, want: usize) {
    let n = want - have;
    letters(
        out,
        bits.rotate_left(17),
        n - n / 5 + scale(bits, 2 * (n as u64 / 5) + 1) as usize,
    );
}

/// `round(100 * 10^(6u))` for 22 bits of u from two tables. They are made by multiplication alone,
/// so that every machine has the same prices.
#[inline(always)]
fn price(bits: u64) -> u64 {
    static POWERS: OnceLock<Box<[[f64; 2048]; 2]>> = OnceLock::new();
    let [coarse, fine] = &**POWERS.get_or_init(|| {
        // 10^(6/2048) and 10^(6/2048^2)
        let mut tables = Box::new([[100.0; 2048], [1.0; 2048]]);
        for (table, factor) in tables
            .iter_mut()
            .zip([1.006_768_659_292_722_4, 1.000_003_293_879_821_6])
        {
            for i in 1..2048 {
                table[i] = table[i - 1] * factor;
            }
        }
        tables
    });
    (coarse[(bits >> 53) as usize] * fine[(bits >> 42 & 2047) as usize] + 0.5) as u64
}

/// Names and URLs of all channels, in one text.
struct Channels {
    text: Vec<u8>,
    /// Of channel i: start of the name, start of the URL; the next entry ends it.
    starts: Vec<u32>,
}

impl Channels {
    #[inline(always)]
    fn name(&self, channel: u64) -> &[u8] {
        let i = 2 * channel as usize;
        &self.text[self.starts[i] as usize..self.starts[i + 1] as usize]
    }
    #[inline(always)]
    fn url(&self, channel: u64) -> &[u8] {
        let i = 2 * channel as usize + 1;
        &self.text[self.starts[i] as usize..self.starts[i + 1] as usize]
    }
}

fn channels() -> &'static Channels {
    static CHANNEL_TEXTS: OnceLock<Channels> = OnceLock::new();
    CHANNEL_TEXTS.get_or_init(|| {
        let (mut text, mut starts) = (Vec::new(), vec![0]);
        for c in 0..CHANNELS {
            text.extend_from_slice(format!("channel-{c}").as_bytes());
            starts.push(text.len() as u32);
            text.extend_from_slice(b"https://www.nexmark.com/");
            digits(&mut text, c * 7919, 36, 0);
            text.push(b'/');
            digits(&mut text, c * 104_729, 36, 0);
            text.extend_from_slice(b"/item.htm?query=1");
            if c % 10 != 0 {
                text.extend_from_slice(
                    format!("&channel_id={}", (c as i32).reverse_bits().unsigned_abs()).as_bytes(),
                );
            }
            starts.push(text.len() as u32);
        }
        for (name, a, b) in HOT {
            text.extend_from_slice(name.as_bytes());
            starts.push(text.len() as u32);
            text.extend_from_slice(
                format!("https://www.nexmark.com/{a}x_y/{b}/item.htm?query=1").as_bytes(),
            );
            starts.push(text.len() as u32);
        }
        Channels { text, starts }
    })
}

#[cfg(test)]
mod tests;
