//! The words of dates and intervals: months, weekdays, units and the special days. Only the first
//! ten letters of a word count, as in PostgreSQL.

/// A unit of time, as `extract`, `date_trunc` and intervals name it.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    IsoYear,
    Julian,
    Epoch,
}

/// A word of a date or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Month(i32),
    Weekday,
    /// `am` (false) or `pm`.
    Half(bool),
    /// `ad` (false) or `bc`.
    Era(bool),
    /// The label of the number that follows.
    Label(Unit),
    /// The `T` between date and time.
    IsoTime,
    Ignored,
    /// `dst` after a zone.
    Summer,
    Now,
    Today,
    Tomorrow,
    Yesterday,
    Midnight,
    Epoch,
    Late,
    Early,
}

/// A word of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntervalWord {
    Unit(Unit),
    Ago,
    Ignored,
}

fn significant(word: &[u8]) -> &[u8] {
    &word[..word.len().min(10)]
}

/// A word in lower case.
pub(super) fn word(word: &[u8]) -> Option<Word> {
    Some(match significant(word) {
        b"jan" | b"january" => Word::Month(1),
        b"feb" | b"february" => Word::Month(2),
        b"mar" | b"march" => Word::Month(3),
        b"apr" | b"april" => Word::Month(4),
        b"may" => Word::Month(5),
        b"jun" | b"june" => Word::Month(6),
        b"jul" | b"july" => Word::Month(7),
        b"aug" | b"august" => Word::Month(8),
        b"sep" | b"sept" | b"september" => Word::Month(9),
        b"oct" | b"october" => Word::Month(10),
        b"nov" | b"november" => Word::Month(11),
        b"dec" | b"december" => Word::Month(12),
        b"sun" | b"sunday" | b"mon" | b"monday" | b"tue" | b"tues" | b"tuesday" | b"wed"
        | b"weds" | b"wednesday" | b"thu" | b"thur" | b"thurs" | b"thursday" | b"fri"
        | b"friday" | b"sat" | b"saturday" => Word::Weekday,
        b"am" => Word::Half(false),
        b"pm" => Word::Half(true),
        b"ad" => Word::Era(false),
        b"bc" => Word::Era(true),
        b"at" | b"on" => Word::Ignored,
        b"dst" => Word::Summer,
        b"t" => Word::IsoTime,
        b"now" => Word::Now,
        b"today" => Word::Today,
        b"tomorrow" => Word::Tomorrow,
        b"yesterday" => Word::Yesterday,
        b"allballs" => Word::Midnight,
        b"epoch" => Word::Epoch,
        b"infinity" => Word::Late,
        b"-infinity" => Word::Early,
        b"y" => Word::Label(Unit::Year),
        b"m" => Word::Label(Unit::Month),
        b"d" => Word::Label(Unit::Day),
        b"h" => Word::Label(Unit::Hour),
        b"mm" => Word::Label(Unit::Minute),
        b"s" => Word::Label(Unit::Second),
        b"j" | b"jd" | b"julian" => Word::Label(Unit::Julian),
        b"dow" => Word::Label(Unit::DayOfWeek),
        b"doy" => Word::Label(Unit::DayOfYear),
        b"isodow" => Word::Label(Unit::IsoDayOfWeek),
        b"isoyear" => Word::Label(Unit::IsoYear),
        _ => return None,
    })
}

/// A word of an interval, in lower case.
pub(super) fn interval_word(word: &[u8]) -> Option<IntervalWord> {
    let unit = match significant(word) {
        b"us" | b"usec" | b"usecs" | b"usecond" | b"useconds" | b"microsecon" => Unit::Microsecond,
        b"ms" | b"msec" | b"msecs" | b"msecond" | b"mseconds" | b"millisecon" => Unit::Millisecond,
        b"s" | b"sec" | b"secs" | b"second" | b"seconds" => Unit::Second,
        b"m" | b"min" | b"mins" | b"minute" | b"minutes" => Unit::Minute,
        b"h" | b"hr" | b"hrs" | b"hour" | b"hours" => Unit::Hour,
        b"d" | b"day" | b"days" => Unit::Day,
        b"w" | b"week" | b"weeks" => Unit::Week,
        b"mon" | b"mons" | b"month" | b"months" => Unit::Month,
        b"qtr" | b"quarter" => Unit::Quarter,
        b"y" | b"yr" | b"yrs" | b"year" | b"years" => Unit::Year,
        b"dec" | b"decs" | b"decade" | b"decades" => Unit::Decade,
        b"c" | b"cent" | b"century" | b"centuries" => Unit::Century,
        b"mil" | b"mils" | b"millennia" | b"millennium" => Unit::Millennium,
        b"timezone" => Unit::Timezone,
        b"timezone_h" => Unit::TimezoneHour,
        b"timezone_m" => Unit::TimezoneMinute,
        b"ago" => return Some(IntervalWord::Ago),
        b"@" => return Some(IntervalWord::Ignored),
        _ => return None,
    };
    Some(IntervalWord::Unit(unit))
}

impl Unit {
    /// The unit of `date_trunc` by name, in any case: a unit that intervals have.
    pub(super) fn of_interval(name: &str) -> Option<Unit> {
        match interval_word(name.to_ascii_lowercase().as_bytes()) {
            Some(IntervalWord::Unit(unit)) => Some(unit),
            _ => None,
        }
    }

    /// The unit of `extract` and `date_part` by name, in any case; `None` if there is no such word.
    pub fn named(name: &str) -> Option<Unit> {
        let lower = name.to_ascii_lowercase();
        if interval_word(lower.as_bytes()).is_some() {
            return Unit::of_interval(name);
        }
        match word(lower.as_bytes()) {
            Some(Word::Label(unit)) => Some(unit),
            Some(Word::Epoch) => Some(Unit::Epoch),
            _ => None,
        }
    }
}
