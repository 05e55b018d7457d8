//! What is printed is read back, the quick reading equals the thorough one, and laws of arithmetic,
//! over values of a small generator.

use super::calendar::{Civil, date_of, days_of};
use super::*;
use tidemark_common::Result;
use tidemark_common::random::Random;

/// Values of a seed.
struct Values(Random);

impl Values {
    fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = (i128::from(high) - i128::from(low) + 1) as u128;
        (i128::from(low) + (u128::from(self.0.next_u64()) % span) as i128) as i64
    }

    /// A timestamp, mostly of our time.
    fn timestamp(&mut self) -> i64 {
        match self.0.next_u64() % 8 {
            0 => self.between(TIMESTAMP_MIN, TIMESTAMP_MAX),
            1 => self.between(-DAY * 400_000, DAY * 400_000) / SECOND * SECOND,
            2 => self.between(0, 40_000) * DAY,
            _ => self.between(0, 40_000 * DAY),
        }
    }

    fn interval(&mut self) -> Interval {
        let small = self.0.next_u64().is_multiple_of(2);
        let (part, micros) = if small {
            (40, 100 * HOUR)
        } else {
            (i64::from(i32::MAX), i64::MAX)
        };
        Interval::new(
            self.between(-part, part) as i32,
            self.between(-part, part) as i32,
            self.between(-micros, micros),
        )
    }
}

fn session(zone: &str) -> Session {
    Session {
        now: 1_700_000_000 * SECOND,
        zone: Zone::of_session(zone).unwrap(),
    }
}

const ROUNDS: usize = 20_000;

#[test]
fn days_and_dates_are_inverse() {
    assert_eq!(date_of(0), (1970, 1, 1));
    assert_eq!(date_of(i64::from(DATE_MIN)), (-4713, 11, 24));
    assert_eq!(date_of(i64::from(DATE_MAX)), (5_874_897, 12, 31));
    let mut random = Values(Random(1));
    for _ in 0..ROUNDS {
        let days = random.between(i64::from(DATE_MIN), i64::from(DATE_MAX));
        let (year, month, day) = date_of(days);
        assert_eq!(days_of(year, month, day), days);
        let text = date_text(days as i32);
        assert_eq!(read_date(&text, &session("UTC")).unwrap(), days as i32);
    }
}

#[test]
fn timestamps_are_read_as_printed() {
    let zones = ["UTC", "America/New_York", "Asia/Kolkata", "Europe/Dublin"];
    let sessions = zones.map(session);
    let mut random = Values(Random(2));
    for round in 0..ROUNDS {
        let micros = random.timestamp();
        let session = &sessions[round % sessions.len()];
        let text = timestamp_text(micros);
        assert_eq!(read_timestamp(&text, 6, session).unwrap(), micros, "{text}");
        let text = timestamptz_text(micros, &session.zone);
        assert_eq!(
            read_timestamptz(&text, 6, session).unwrap(),
            micros,
            "{text}"
        );
        assert_eq!(Civil::of(micros).timestamp(), Some(micros));
        let time = micros.rem_euclid(DAY);
        assert_eq!(read_time(&time_text(time), 6, session).unwrap(), time);
    }
}

#[test]
fn the_quick_reading_equals_the_thorough_one() {
    let session = session("Europe/Berlin");
    let mut random = Values(Random(3));
    for _ in 0..ROUNDS {
        let mut text = timestamp_text(random.timestamp());
        text.push_str(["", "Z", "+02", "-03:30", " UTC", "+1"][(random.0.next_u64() % 6) as usize]);
        if random.0.next_u64().is_multiple_of(4) {
            let at = random.0.next_u64() as usize % text.len();
            let byte = b"0123456789:-. T+"[random.0.next_u64() as usize % 16];
            text.replace_range(at..=at, std::str::from_utf8(&[byte]).unwrap());
        }
        let zoned = "timestamp with time zone";
        let thorough = read::any(&text, zoned, true, &session);
        let quick = read_timestamptz(&text, 6, &session);
        assert_eq!(
            quick.map_err(|e| e.to_string()),
            thorough.map_err(|e| e.to_string())
        );
        let thorough = read::any(&text, "timestamp", false, &session);
        let quick = read_timestamp(&text, 6, &session);
        assert_eq!(
            quick.map_err(|e| e.to_string()),
            thorough.map_err(|e| e.to_string())
        );
        let date = text.get(..10).unwrap_or(&text);
        assert_eq!(
            read_date(date, &session).map_err(|e| e.to_string()),
            read::any_date(date, &session).map_err(|e| e.to_string())
        );
    }
}

#[test]
fn intervals_are_read_as_printed() {
    let mut random = Values(Random(4));
    for _ in 0..ROUNDS {
        let interval = random.interval();
        let text = interval_text_of(interval);
        let read = read_interval(&text, IntervalFields::All, 6).unwrap();
        assert_eq!(read, interval, "{text}");
    }
}

#[test]
fn sums_and_differences_agree() {
    let mut random = Values(Random(5));
    for _ in 0..ROUNDS {
        let (a, b) = (random.timestamp(), random.timestamp());
        let Ok(span) = timestamp_minus(a, b) else {
            continue;
        };
        assert_eq!(timestamp_plus(b, span).unwrap(), a);
        let age = timestamp_age(a, b).unwrap();
        assert_eq!(
            interval_key(age).signum(),
            (a > b) as i128 - (a < b) as i128
        );
        let small = random.interval();
        let justified = small.justify();
        if let Ok(justified) = justified {
            assert_eq!(interval_key(justified), interval_key(small));
        }
    }
}

#[test]
fn what_is_reached_is_the_first_that_reaches() {
    let hour = 3_600_000_000i64;
    let mut random = Values(Random(7));
    for _ in 0..3000 {
        // Around the ends of months of two years.
        let at = 1_700_000_000_000_000 + random.between(0, 24 * 730) * hour;
        let span = Interval {
            months: random.between(-3, 3) as i32,
            days: random.between(-3, 3) as i32,
            micros: random.between(-30, 30) * hour / 2,
        };
        let reached = timestamp_reached(at, span).unwrap();
        let back = |clock| timestamptz_minus_interval(clock, span, &Zone::UTC).unwrap();
        assert!(back(reached) >= at, "{at} {span:?}");
        let before = (0..24 * 40).map(|hours| reached - 1 - hours * hour / 2);
        before.for_each(|clock| assert!(back(clock) < at, "{at} {span:?} {clock}"));
    }
}

#[test]
fn special_words_follow_the_transaction() {
    // 2023-11-14 22:13:20 UTC
    let tokyo = session("Asia/Tokyo");
    let text = |micros: Result<i64>| timestamp_text(micros.unwrap());
    assert_eq!(
        text(read_timestamp("now", 6, &tokyo)),
        "2023-11-15 07:13:20"
    );
    assert_eq!(
        text(read_timestamp("TODAY", 6, &tokyo)),
        "2023-11-15 00:00:00"
    );
    assert_eq!(
        text(read_timestamp("tomorrow 10:20", 6, &tokyo)),
        "2023-11-16 10:20:00"
    );
    assert_eq!(
        text(read_timestamptz("yesterday allballs", 6, &tokyo)),
        "2023-11-14 00:00:00"
    );
    assert_eq!(read_timestamptz("now", 6, &tokyo).unwrap(), tokyo.now);
    assert_eq!(date_text(read_date("today", &tokyo).unwrap()), "2023-11-15");
    assert_eq!(time_text(read_time("now", 6, &tokyo).unwrap()), "07:13:20");
}

#[test]
fn infinities_stay() {
    let session = session("America/New_York");
    let span = Interval::new(1, 2, 3);
    for (text, micros, days) in [
        ("infinity", TIMESTAMP_INFINITY, DATE_INFINITY),
        ("-infinity", TIMESTAMP_MINUS_INFINITY, DATE_MINUS_INFINITY),
    ] {
        assert_eq!(read_timestamptz(text, 6, &session).unwrap(), micros);
        assert_eq!(read_date(text, &session).unwrap(), days);
        assert_eq!(timestamptz_text(micros, &session.zone), text);
        assert_eq!(
            timestamptz_plus(micros, span, &session.zone).unwrap(),
            micros
        );
        assert_eq!(timestamp_to_date(micros), days);
        assert!(!timestamp_is_finite(micros) && !date_is_finite(days));
    }
}

#[test]
fn extremes_are_answered_or_refused() {
    let zone = Zone::find("America/St_Johns").unwrap();
    let wide = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    let narrow = [i32::MIN, i32::MIN + 1, -1, 0, 1, i32::MAX - 1, i32::MAX];
    let template = Template::new("YYYY IYYY IW CC RM J DDD HH:MI:SS.US TZ OF Day");
    for a in wide {
        for b in wide {
            let _ = timestamp_minus(a, b);
            let _ = timestamp_age(a, b);
            let _ = timestamptz_age(a, b, &zone);
            let _ = date_bin(Interval::new(0, 1, a), b, 0);
            for part in narrow {
                let span = Interval::new(part, part, b);
                let _ = timestamptz_plus(a, span, &zone);
                let _ = timestamptz_minus_interval(a, span, &zone);
                let _ = (span.justify(), span.negated(), span.times(-1.5));
                let _ = (span.divided(0.1), interval_key(span), span.time_of_day());
                let _ = interval_text_of(span);
                let _ = truncate_interval("century", span);
                let _ = extract_interval("epoch", span);
                let _ = to_char_interval(&Template::new("YYYY J DDD WW HH"), span);
            }
        }
        let _ = timestamptz_text(a, &zone);
        let _ = to_char_timestamptz(&template, a, &zone);
        for field in [
            "week", "century", "hour", "us", "timezone", "julian", "isoyear",
        ] {
            let _ = extract_timestamptz(field, a, &zone);
            let _ = truncate_timestamptz(field, a, &zone);
        }
        let _ = (
            round_micros(a, 0),
            timestamp_to_date(a),
            moment_at_zone(a, &zone),
        );
    }
    for a in narrow {
        for b in narrow {
            let _ = (
                date_minus_date(a, b),
                date_plus_days(a, b),
                date_minus_days(a, b),
            );
            let _ = make_interval(a, b, a, b, a, b, 1e300);
            let _ = make_timestamp(a, b, a, b, a, 1e300);
            let _ = make_date(a, 1, 1);
            let text = format!("{a} {b} {a}");
            for pattern in [
                "CC YY BC",
                "FMID IW IYYY",
                "FMDDD YYYY FMWW",
                "W YYYY MM",
                "J",
            ] {
                let _ = to_date(&text, &Template::new(pattern));
                let _ = to_timestamp(&text, &Template::new(pattern), &zone);
            }
        }
        let _ = (
            date_text(a),
            date_to_timestamptz(a, &zone),
            extract_date("week", a),
        );
    }
}

#[test]
fn sessions_zones_are_shown_as_postgresql_shows_them() {
    let names = [
        ("europe/berlin", "Europe/Berlin"),
        ("utc", "UTC"),
        ("zulu", "Zulu"),
        ("5", "<+05>-05"),
        ("-5.5", "<-05:30>+05:30"),
        ("0", "<+00>-00"),
        ("foo+3", "FOO+3"),
        ("<+05>-05", "<+05>-05"),
        ("interval '02:30:08'", "<+02:30:08>-02:30:08"),
    ];
    for (given, shown) in names {
        assert_eq!(Zone::session_name(given).unwrap(), shown, "{given}");
        let (given, shown) = (Zone::of_session(given), Zone::of_session(shown));
        assert_eq!(given.unwrap().offset_at(0), shown.unwrap().offset_at(0));
    }
    for unknown in [
        "PST",
        "Mars",
        "",
        "168",
        "nan",
        "interval '1 day'",
        "Europe/Berlin ",
    ] {
        assert!(Zone::session_name(unknown).is_err(), "{unknown}");
    }
}
