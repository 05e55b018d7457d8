//! Reads dates and timestamps in every spelling of PostgreSQL.
//!
//! The usual spelling, `YYYY-MM-DD` with `HH:MM:SS[.ffffff]` and a numeric zone, is read directly
//! from its bytes; everything else is cut into fields ([`super::token`]) that are read one by one.

use super::calendar::{Civil, JULIAN_OF_1970, days_in_month, days_of};
use super::failure::{Failure, overflow};
use super::field::*;
use super::number::{fraction, leading_i32};
use super::token::{LONG, SHORT, Shape, Tokens};
use super::word::{Unit, Word, word};
use super::zone::displacement;
use super::{
    DATE_INFINITY, DATE_MAX, DATE_MIN, DATE_MINUS_INFINITY, DAY, HOUR, MINUTE, SECOND,
    TIMESTAMP_INFINITY, TIMESTAMP_MAX, TIMESTAMP_MIN, TIMESTAMP_MINUS_INFINITY, Zone,
};
use tidemark_common::Result;

/// What reading and computing take from a session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The transaction's time, microseconds since 1970-01-01 UTC: `now`, `today`.
    pub now: i64,
    /// The session's time zone.
    pub zone: Zone,
}

impl Session {
    /// The local time of `now`.
    pub(super) fn local_now(&self) -> Civil {
        Civil::of(self.zone.local_of(self.now).unwrap_or(self.now))
    }
}

/// A text that was read.
enum Read {
    /// A local time; its zone's seconds east of UTC, or the session's.
    Moment(Civil, Option<i32>),
    Epoch,
    Late,
    Early,
}

/// The zone of a text, which may need the whole date to give an offset.
pub(super) enum ReadZone {
    None,
    Offset(i32),
    Named(Zone),
}

/// Reads a date.
///
/// Errors: `22007`, `22008`, `22009` and `22023`, as PostgreSQL.
#[inline]
pub fn read_date(text: &str, session: &Session) -> Result<i32> {
    match text.as_bytes().first_chunk::<10>() {
        Some(date) if text.len() == 10 => match usual_date(date) {
            Some(days) => Ok(days as i32),
            None => any_date(text, session),
        },
        _ => any_date(text, session),
    }
}

/// Reads a timestamp without time zone; a zone in the text is ignored. `precision` is the number of
/// digits after the second's point that it is rounded to, 6 to keep it.
///
/// Errors: `22007`, `22008`, `22009` and `22023`, as PostgreSQL.
#[inline]
pub fn read_timestamp(text: &str, precision: u8, session: &Session) -> Result<i64> {
    let micros = match usual(text.as_bytes()) {
        Some((local, _)) => local,
        None => any(text, "timestamp", false, session)?,
    };
    rounded(micros, precision)
}

/// Reads a timestamp with time zone, the session's if the text has none.
///
/// Errors: `22007`, `22008`, `22009` and `22023`, as PostgreSQL.
#[inline]
pub fn read_timestamptz(text: &str, precision: u8, session: &Session) -> Result<i64> {
    let micros = match usual(text.as_bytes()) {
        Some((local, Some(offset))) => local - i64::from(offset) * SECOND,
        Some((local, None)) => local - i64::from(session.zone.offset_at_local(local)) * SECOND,
        None => any(text, "timestamp with time zone", true, session)?,
    };
    rounded(micros, precision)
}

#[inline]
fn rounded(micros: i64, precision: u8) -> Result<i64> {
    if precision >= 6 {
        return Ok(micros);
    }
    let result = round_timestamp(micros, precision);
    if result < TIMESTAMP_MIN && micros != TIMESTAMP_MINUS_INFINITY {
        return Err(super::failure::timestamp_out_of_range());
    }
    Ok(result)
}

/// Rounds a timestamp to `precision` digits of the second: halves away from 2000, from where
/// PostgreSQL counts. Infinities stay.
pub fn round_timestamp(micros: i64, precision: u8) -> i64 {
    const FROM_2000: i64 = 946_684_800 * SECOND;
    if !super::timestamp_is_finite(micros) {
        return micros;
    }
    round_micros(micros.saturating_sub(FROM_2000), precision).saturating_add(FROM_2000)
}

/// Rounds microseconds of a time or an interval to `precision` digits of the second,
/// halves away from zero. Infinities stay.
pub fn round_micros(micros: i64, precision: u8) -> i64 {
    if precision >= 6 || !super::timestamp_is_finite(micros) {
        return micros;
    }
    let unit = 10i64.pow(6 - u32::from(precision));
    let half = unit / 2;
    if micros >= 0 {
        micros.saturating_add(half) / unit * unit
    } else {
        micros.saturating_sub(half) / unit * unit
    }
}

#[inline]
fn two(text: [u8; 2]) -> Option<i32> {
    let (a, b) = (text[0].wrapping_sub(b'0'), text[1].wrapping_sub(b'0'));
    (a < 10 && b < 10).then_some(i32::from(a) * 10 + i32::from(b))
}

/// Days of a `YYYY-MM-DD` that exists.
#[inline]
fn usual_date(text: &[u8; 10]) -> Option<i64> {
    let [a, b, c, d, b'-', e, f, b'-', g, h] = *text else {
        return None;
    };
    let year = i64::from(two([a, b])? * 100 + two([c, d])?);
    let (month, day) = (two([e, f])?, two([g, h])?);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    Some(days_of(year, month, day))
}

/// Local microseconds and offset of `YYYY-MM-DD[ T]HH:MM:SS[.ffffff][Z|+HH[:MM]]`; `None` for any
/// other spelling, right or wrong.
#[inline]
fn usual(text: &[u8]) -> Option<(i64, Option<i32>)> {
    let (date, rest) = text.split_first_chunk::<10>()?;
    let day = usual_date(date)? * DAY;
    if rest.is_empty() {
        return Some((day, None));
    }
    let (&[joint, a, b, c1, d, e, c2, f, g], rest) = rest.split_first_chunk::<9>()?;
    if !matches!(joint, b' ' | b'T') || c1 != b':' || c2 != b':' {
        return None;
    }
    let (hour, minute, second) = (two([a, b])?, two([d, e])?, two([f, g])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, rest) = usual_fraction(rest)?;
    let local = day
        + i64::from(hour) * HOUR
        + i64::from(minute) * MINUTE
        + i64::from(second) * SECOND
        + micros;
    let offset = match *rest {
        [] => None,
        [b'Z'] => Some(0),
        [sign @ (b'+' | b'-'), a, b] => Some(usual_offset(sign, [a, b], *b"00")?),
        [sign @ (b'+' | b'-'), a, b, b':', c, d] => Some(usual_offset(sign, [a, b], [c, d])?),
        _ => return None,
    };
    Some((local, offset))
}

#[inline]
fn usual_offset(sign: u8, hours: [u8; 2], minutes: [u8; 2]) -> Option<i32> {
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let seconds = hours * 3600 + minutes * 60;
    (hours <= 15 && minutes < 60).then_some(if sign == b'-' { -seconds } else { seconds })
}

/// A fraction of up to 6 digits.
#[inline]
fn usual_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    if text.first() != Some(&b'.') {
        return Some((0, text));
    }
    let (mut micros, mut unit, mut at) = (0, SECOND, 1);
    while let Some(digit @ b'0'..=b'9') = text.get(at) {
        unit /= 10;
        micros += i64::from(digit - b'0') * unit;
        at += 1;
    }
    (2..=7).contains(&at).then_some((micros, &text[at..]))
}

#[cold]
#[inline(never)]
pub(super) fn any_date(text: &str, session: &Session) -> Result<i32> {
    let read = read(text, SHORT, session).map_err(|failure| failure.error(text, "date"))?;
    let civil = match read {
        Read::Moment(civil, _) => civil,
        Read::Epoch => return Ok(0),
        Read::Late => return Ok(DATE_INFINITY),
        Read::Early => return Ok(DATE_MINUS_INFINITY),
    };
    let days = civil.days();
    if !civil.has_julian_day() || !(i64::from(DATE_MIN)..=i64::from(DATE_MAX)).contains(&days) {
        return Err(overflow(format!("date out of range: \"{text}\"")));
    }
    Ok(days as i32)
}

#[cold]
#[inline(never)]
pub(super) fn any(text: &str, type_name: &str, zoned: bool, session: &Session) -> Result<i64> {
    let read = read(text, LONG, session).map_err(|failure| failure.error(text, type_name))?;
    let (civil, offset) = match read {
        Read::Moment(civil, offset) => (civil, offset),
        Read::Epoch => return Ok(0),
        Read::Late => return Ok(TIMESTAMP_INFINITY),
        Read::Early => return Ok(TIMESTAMP_MINUS_INFINITY),
    };
    let moment = || {
        if !civil.has_julian_day() {
            return None;
        }
        // The time of day and the offset first: the last local day may begin beyond 64 bits.
        let mut time = civil.time();
        if zoned {
            let offset = match offset {
                Some(offset) => offset,
                None => session
                    .zone
                    .offset_at_local(civil.days().saturating_mul(DAY).saturating_add(time)),
            };
            time -= i64::from(offset) * SECOND;
        }
        let micros = civil.days().checked_mul(DAY)?.checked_add(time)?;
        (TIMESTAMP_MIN..=TIMESTAMP_MAX)
            .contains(&micros)
            .then_some(micros)
    };
    moment().ok_or_else(|| overflow(format!("timestamp out of range: \"{text}\"")))
}

fn read(text: &str, limit: usize, session: &Session) -> Result<Read, Failure> {
    let tokens = Tokens::cut(text, limit)?;
    let mut reader = Reader {
        draft: Draft::default(),
        zone: ReadZone::None,
        label: None,
        special: None,
        session,
    };
    for index in 0..tokens.count {
        reader.field(&tokens, index)?;
    }
    reader.finish()
}

struct Reader<'a> {
    draft: Draft,
    zone: ReadZone,
    /// What the next number is, if a word has said so.
    label: Option<Label>,
    /// `epoch`, `infinity`: the last word that made the text no date of fields.
    special: Option<Word>,
    session: &'a Session,
}

/// What a word says of the number that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Unit(Unit),
    IsoTime,
}

impl Reader<'_> {
    fn field(&mut self, tokens: &Tokens, index: usize) -> Result<(), Failure> {
        let text = tokens.field(index);
        let given = match tokens.shape(index) {
            Shape::Date => self.date(text)?,
            Shape::Time => {
                if self.label.take().is_some_and(|l| l != Label::IsoTime) {
                    return Err(Failure::Format);
                }
                let given = self.draft.time(text)?;
                if self.draft.time_overflows() {
                    return Err(Failure::Field);
                }
                given
            }
            Shape::Zone => {
                self.zone = ReadZone::Offset(displacement(text)?);
                ZONE
            }
            Shape::Number => self.number(text)?,
            Shape::Word | Shape::Special => match self.word(tokens, index)? {
                Some(given) => given,
                None => return Ok(()),
            },
        };
        self.draft.note(given)
    }

    fn date(&mut self, text: &[u8]) -> Result<Seen, Failure> {
        let draft = &mut self.draft;
        if self.label == Some(Label::Unit(Unit::Julian)) {
            let (day, rest) = leading_i32(text).ok_or(Failure::Field)?;
            if day < 0 {
                return Err(Failure::Field);
            }
            draft.set_days(i64::from(day) - JULIAN_OF_1970);
            draft.julian = true;
            self.zone = ReadZone::Offset(displacement(rest)?);
            self.label = None;
            return Ok(DATE | TIME | ZONE);
        }
        let both = MONTH | DAY_OF_MONTH;
        if self.label.is_none() && draft.seen & both != both {
            return draft.date(text, draft.seen);
        }
        if !text[0].is_ascii_digit() && self.label.is_none() {
            self.zone = ReadZone::Named(zone_of_field(text)?);
            return Ok(ZONE);
        }
        // A time run together with its zone: `101112-08`.
        if self.label.take().is_some_and(|l| l != Label::IsoTime) || draft.seen & TIME == TIME {
            return Err(Failure::Format);
        }
        let dash = text
            .iter()
            .position(|b| *b == b'-')
            .ok_or(Failure::Format)?;
        self.zone = ReadZone::Offset(displacement(&text[dash..])?);
        let (given, _) = draft.compact(&text[..dash], draft.seen)?;
        Ok(given | ZONE)
    }

    fn number(&mut self, text: &[u8]) -> Result<Seen, Failure> {
        if let Some(label) = self.label.take() {
            self.special = None;
            return labelled(&mut self.draft, &mut self.zone, label, text);
        }
        let draft = &mut self.draft;
        let seen = draft.seen;
        let point = text.iter().position(|b| *b == b'.');
        match point {
            Some(_) if seen & DATE == 0 => draft.date(text, seen),
            Some(point) if point > 2 => Ok(draft.compact(text, seen)?.0),
            _ if text.len() >= 6 && (seen & DATE == 0 || seen & TIME == 0) => {
                Ok(draft.compact(text, seen)?.0)
            }
            _ => draft.number(text, draft.text_month, seen),
        }
    }

    /// A word; `None` if it gives nothing to note.
    fn word(&mut self, tokens: &Tokens, index: usize) -> Result<Option<Seen>, Failure> {
        let text = tokens.field(index);
        if let Some((zone, given)) = zone_of_word(text) {
            self.zone = zone;
            return Ok(Some(given));
        }
        let draft = &mut self.draft;
        let today = |draft: &mut Draft, more: i64| {
            let days = self.session.local_now().days();
            draft.set_days(days + more);
            DATE
        };
        let given = match word(text) {
            None => {
                let name = std::str::from_utf8(text).map_err(|_| Failure::Format)?;
                self.zone = ReadZone::Named(Zone::of_name(name).ok_or(Failure::Format)?);
                ZONE
            }
            Some(Word::Ignored) => return Ok(None),
            Some(Word::Now) => {
                self.special = None;
                draft.at = self.session.local_now();
                self.zone = ReadZone::Offset(self.session.zone.offset_at(self.session.now));
                DATE | TIME | ZONE
            }
            Some(Word::Yesterday) => {
                self.special = None;
                today(draft, -1)
            }
            Some(Word::Today) => {
                self.special = None;
                today(draft, 0)
            }
            Some(Word::Tomorrow) => {
                self.special = None;
                today(draft, 1)
            }
            Some(Word::Midnight) => {
                self.special = None;
                draft.set_time(0);
                self.zone = ReadZone::Offset(0);
                TIME | ZONE
            }
            Some(special @ (Word::Epoch | Word::Late | Word::Early)) => {
                self.special = Some(special);
                SPECIAL
            }
            Some(Word::Month(month)) => {
                let given = draft.month_word();
                draft.text_month = true;
                draft.at.month = month;
                given
            }
            Some(Word::Summer) => {
                let offset = match self.zone {
                    ReadZone::Offset(offset) => offset,
                    _ => 0,
                };
                self.zone = ReadZone::Offset(offset + 3600);
                SUMMER | SUMMER_ZONE
            }
            Some(Word::Half(is_after_noon)) => {
                draft.half = Some(is_after_noon);
                HALF
            }
            Some(Word::Era(before_christ)) => {
                draft.before_christ = before_christ;
                ERA
            }
            Some(Word::Weekday) => WEEKDAY,
            Some(Word::Label(unit)) => {
                self.label = Some(Label::Unit(unit));
                0
            }
            Some(Word::IsoTime) => {
                if draft.seen & DATE != DATE {
                    return Err(Failure::Format);
                }
                self.label = Some(iso_time(tokens, index)?);
                0
            }
        };
        Ok(Some(given))
    }

    fn finish(mut self) -> Result<Read, Failure> {
        let draft = &mut self.draft;
        draft.finish_date()?;
        draft.finish_half()?;
        match self.special {
            Some(Word::Epoch) => return Ok(Read::Epoch),
            Some(Word::Late) => return Ok(Read::Late),
            Some(Word::Early) => return Ok(Read::Early),
            _ => {}
        }
        if draft.seen & DATE != DATE {
            return Err(Failure::Format);
        }
        let has_zone = draft.seen & ZONE != 0;
        if draft.seen & SUMMER != 0 && (!has_zone || !matches!(self.zone, ReadZone::Offset(_))) {
            return Err(Failure::Format);
        }
        let offset = match &self.zone {
            ReadZone::None => None,
            ReadZone::Offset(offset) => Some(*offset),
            ReadZone::Named(zone) => {
                let days = draft.at.days().saturating_mul(DAY);
                Some(zone.offset_at_local(days.saturating_add(draft.at.time())))
            }
        };
        Ok(Read::Moment(draft.at, offset))
    }
}

impl Draft {
    /// The parts that a month's name gives: the month, or the day if a number has been taken for
    /// the month that must have been the day.
    fn month_word(&mut self) -> Seen {
        let is_day = self.seen & MONTH != 0
            && !self.text_month
            && self.seen & DAY_OF_MONTH == 0
            && (1..=31).contains(&self.at.month);
        if is_day {
            self.at.day = self.at.month;
            DAY_OF_MONTH
        } else {
            MONTH
        }
    }
}

/// The `T` of ISO 8601 must be followed by a time.
pub(super) fn iso_time(tokens: &Tokens, index: usize) -> Result<Label, Failure> {
    let next = index + 1;
    let is_time = next < tokens.count
        && matches!(
            tokens.shape(next),
            Shape::Number | Shape::Time | Shape::Date
        );
    is_time.then_some(Label::IsoTime).ok_or(Failure::Format)
}

/// The zone of a word that is an abbreviation, and what it gives.
pub(super) fn zone_of_word(text: &[u8]) -> Option<(ReadZone, Seen)> {
    let zone = Zone::of_abbreviation(text)?;
    let summer = Zone::is_summer_abbreviation(text);
    Some(match zone.constant() {
        Some(offset) if summer => (ReadZone::Offset(offset), ZONE | SUMMER_ZONE),
        Some(offset) => (ReadZone::Offset(offset), ZONE),
        None => (ReadZone::Named(zone), ZONE | CHANGING_ZONE),
    })
}

/// The zone of a field with punctuation, `america/new_york`.
pub(super) fn zone_of_field(text: &[u8]) -> Result<Zone, Failure> {
    let name = String::from_utf8_lossy(text);
    Zone::of_name(&name).ok_or_else(|| Failure::Zone(name.into_owned()))
}

/// A number that a word before it has named: `J2451187`, `y2001m02d04`.
pub(super) fn labelled(
    draft: &mut Draft,
    zone: &mut ReadZone,
    label: Label,
    text: &[u8],
) -> Result<Seen, Failure> {
    let (value, rest) = leading_i32(text).ok_or(Failure::Field)?;
    let may_have_fraction = matches!(
        label,
        Label::IsoTime | Label::Unit(Unit::Julian | Unit::Second)
    );
    if !rest.is_empty() && (rest[0] != b'.' || !may_have_fraction) {
        return Err(Failure::Format);
    }
    let Label::Unit(unit) = label else {
        let (given, _) = draft.compact(text, draft.seen | DATE)?;
        return if given == TIME {
            Ok(given)
        } else {
            Err(Failure::Format)
        };
    };
    Ok(match unit {
        Unit::Year => {
            draft.at.year = value;
            YEAR
        }
        Unit::Month if draft.seen & (MONTH | HOURS) == MONTH | HOURS => {
            draft.at.minute = value;
            MINUTES
        }
        Unit::Month => {
            draft.at.month = value;
            MONTH
        }
        Unit::Day => {
            draft.at.day = value;
            DAY_OF_MONTH
        }
        Unit::Hour => {
            draft.at.hour = value;
            HOURS
        }
        Unit::Minute => {
            draft.at.minute = value;
            MINUTES
        }
        Unit::Second => {
            draft.at.second = value;
            if rest.is_empty() {
                return Ok(SECONDS);
            }
            draft.at.micros = super::number::fraction_micros(rest)?;
            SECONDS | FRACTION
        }
        Unit::Timezone => {
            *zone = ReadZone::Offset(displacement(text)?);
            ZONE
        }
        Unit::Julian => {
            if value < 0 {
                return Err(Failure::Field);
            }
            draft.set_days(i64::from(value) - JULIAN_OF_1970);
            draft.julian = true;
            if rest.is_empty() {
                return Ok(DATE);
            }
            draft.set_time((fraction(rest)? * DAY as f64) as i64);
            DATE | TIME
        }
        _ => return Err(Failure::Format),
    })
}
