//! How much memory there is, and how people write an amount of it: `512MB`, `2GB`, `25%`.

use crate::{Error, Result, SqlState};
use std::fs::read_to_string;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is assumed of a machine that does not tell.
const UNKNOWN_BYTES: u64 = 4 << 30;

/// Units of an amount, as PostgreSQL has them.
const UNITS: [(&str, u64); 5] = [
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("kB", 1 << 10),
    ("B", 1),
];

/// Bytes that this process may use: the machine's, or the control group's where that is less.
pub fn machine_bytes() -> u64 {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes << 10)
    });
    // Of version 2, then of version 1; "max" is none.
    let group = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let group = group
        .iter()
        .find_map(|file| read_to_string(file).ok()?.trim().parse().ok());
    let known = machine.into_iter().chain(group);
    known.min().unwrap_or(UNKNOWN_BYTES)
}

/// Counts what several hold.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<AtomicU64>);

impl Account {
    /// Counts so many bytes until the result is dropped.
    pub fn hold(&self, bytes: u64) -> Held {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Held {
            account: self.clone(),
            bytes,
        }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes that are held.
#[derive(Debug)]
pub struct Held {
    account: Account,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads an amount: bytes, a number with a unit, or a percentage of `whole`. `None` for what is
/// none.
pub fn parse_bytes(text: &str, whole: u64) -> Option<u64> {
    let text = text.trim();
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u64 = percent.trim_end().parse().ok()?;
        return (percent <= 100).then(|| (u128::from(whole) * u128::from(percent) / 100) as u64);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = if unit.is_empty() {
        1
    } else {
        let known = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit));
        known?.1
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// An amount in the largest unit that says it in whole numbers.
pub fn bytes_text(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, factor)| bytes % factor == 0);
    match unit {
        Some((name, factor)) if bytes > 0 => format!("{}{name}", bytes / factor),
        _ => "0".into(),
    }
}

/// An amount for people: three digits at most.
pub fn about(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, factor)| bytes >= *factor);
    match unit {
        Some((name, 1)) => format!("{bytes} {name}"),
        Some((name, factor)) if bytes < 10 * factor => {
            format!("{:.1} {name}", bytes as f64 / *factor as f64)
        }
        Some((name, factor)) => format!("{} {name}", bytes / factor),
        None => "0 B".into(),
    }
}

/// Checks a setting that is an amount, or a percentage of `whole`.
pub(crate) fn check_amount(key: &str, text: &str, whole: u64) -> Result<u64> {
    let bytes = parse_bytes(text, whole).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| {
        Error::user(
            SqlState::INVALID_PARAMETER,
            format!(
                "configuration: {key} must be an amount of memory like 2GB, 512MB or 25%, not \
                 \"{text}\""
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let account = Account::default();
        let (first, second) = (account.hold(5), account.clone().hold(7));
        assert_eq!(account.bytes(), 12);
        drop(first);
        assert_eq!(account.bytes(), 7);
        drop(second);
        assert_eq!(account.bytes(), 0);
    }

    #[test]
    fn amounts_are_read_and_written() {
        let read = |text| parse_bytes(text, 1000);
        assert_eq!(read("4096"), Some(4096));
        assert_eq!(read("64kB"), Some(64 << 10));
        assert_eq!(read(" 512 mb "), Some(512 << 20));
        assert_eq!(read("2GB"), Some(2 << 30));
        assert_eq!(read("25%"), Some(250));
        for wrong in ["", "x", "-1", "1.5GB", "101%", "5XB", "99999999999TB"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(bytes_text(3 << 29), "1536MB");
        assert_eq!(bytes_text(1001), "1001B");
        assert_eq!(about(3 << 29), "1.5 GB");
        assert_eq!(about(70_000), "68 kB");
        assert!(machine_bytes() > 1 << 20);
    }
}
