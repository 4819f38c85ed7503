//! When a message may be let go at the earliest: HOLDFOR and HOLDUNTIL of MAIL (RFC 4865).

use std::time::Duration;

use crate::command;
use crate::limits::RELEASE_MAX;

/// What a client has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// So long after the message was taken (HOLDFOR).
    After(Duration),
    /// Then (HOLDUNTIL), in seconds since the epoch. What is past is now.
    At(u64),
}

impl Release {
    /// The time in milliseconds since the epoch, for a message that is taken at `received_ms`; `None`: at once.
    pub fn of(self, received_ms: u64) -> Option<u64> {
        let at_ms = match self {
            Self::After(wait) => received_ms.saturating_add(wait.as_millis() as u64),
            Self::At(second) => second.saturating_mul(1000),
        };
        (at_ms > received_ms).then_some(at_ms)
    }

    /// The value of HOLDFOR: seconds, at most nine digits, not beginning with 0.
    pub(crate) fn hold_for(value: &[u8]) -> Option<Self> {
        let seconds = command::number(value).filter(|_| value.len() <= 9 && value[0] != b'0')?;
        Some(Self::After(Duration::from_secs(seconds)))
    }

    /// The value of HOLDUNTIL: a date and a time (RFC 3339 §5.6).
    pub(crate) fn hold_until(value: &[u8]) -> Option<Self> {
        parse(value).map(Self::At)
    }

    /// Whether it is no longer than what is announced, whose date is `latest` (in seconds since the epoch).
    pub(crate) fn is_within(self, latest: u64) -> bool {
        match self {
            Self::After(wait) => wait <= RELEASE_MAX,
            Self::At(second) => second <= latest,
        }
    }
}

/// Appends what EHLO announces: the longest interval in seconds, and the latest time.
pub(crate) fn announce(latest: u64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(latest / 86_400);
    let (hour, minute, second) = (latest / 3600 % 24, latest / 60 % 60, latest % 60);
    let seconds = RELEASE_MAX.as_secs();
    let text =
        format!("\r\n250-FUTURERELEASE {seconds} {year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    out.extend_from_slice(text.as_bytes());
}

/// Seconds since the epoch of `2026-11-29T08:30:00Z`, `2026-11-29T09:30:00.5+01:00`; of what is before it, 0.
fn parse(text: &[u8]) -> Option<u64> {
    let (fixed, rest) = text.split_at_checked(19)?;
    let number = |from: usize, to: usize| command::number(&fixed[from..to]);
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let is_marked = marks.iter().all(|(at, mark)| fixed[*at] == *mark) && fixed[10].eq_ignore_ascii_case(&b'T');
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let rest = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            fraction.get(digits..).filter(|_| digits > 0)?
        }
        None => rest,
    };
    let (east, west) = match *rest {
        [b'Z' | b'z'] => (0, 0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (command::number(&[h1, h2])?, command::number(&[m1, m2])?);
            let offset = (hours * 60 + minutes) * 60;
            let is_offset = hours < 24 && minutes < 60;
            is_offset.then_some(if sign == b'+' { (offset, 0) } else { (0, offset) })?
        }
        _ => return None,
    };
    // 60: a leap second.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let is_date = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !is_marked || !is_time || !is_date {
        return None;
    }
    let Some(days) = days_since_epoch(year, month, day) else { return Some(0) };
    Some((days * 86_400 + hour * 3600 + minute * 60 + second + west).saturating_sub(east))
}

fn days_in(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `None`: before 1970. Years begin in March, so that the leap day is the last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    days.checked_sub(DAYS_TO_EPOCH)
}

/// Year, month (1–12), day of a day since the epoch.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_EPOCH;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month < 3), month, day_of_month)
}

/// From 1 March of the year 0.
const DAYS_TO_EPOCH: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<u64> {
        parse(text.as_bytes())
    }

    #[test]
    fn dates_are_read() {
        assert_eq!(at("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(at("2026-11-29T08:30:00Z"), Some(1_795_941_000));
        assert_eq!(at("2026-11-29t09:30:00.25+01:00"), Some(1_795_941_000));
        assert_eq!(at("2026-11-28T23:00:00-09:30"), Some(1_795_941_000));
        assert_eq!(at("2024-02-29T23:59:60z"), Some(1_709_251_200));
        assert_eq!(at("1969-12-31T23:59:59Z"), Some(0), "long past");
        assert_eq!(at("0000-01-01T00:00:00Z"), Some(0));
        for wrong in [
            "",
            "2026-11-29",
            "2026-11-29T08:30:00",
            "2026-11-29 08:30:00Z",
            "2026-02-29T08:30:00Z",
            "2026-13-01T08:30:00Z",
            "2026-00-01T08:30:00Z",
            "2026-11-31T08:30:00Z",
            "2026-11-29T24:00:00Z",
            "2026-11-29T08:60:00Z",
            "2026-11-29T08:30:61Z",
            "2026-11-29T08:30:00.Z",
            "2026-11-29T08:30:00+0100",
            "2026-11-29T08:30:00+24:00",
            "2026-11-29T08:30:00ZZ",
            "+026-11-29T08:30:00Z",
        ] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn dates_are_written_as_they_are_read() {
        for day in 0..40_000_u64 {
            let latest = day * 86_400 + day * 7919 % 86_400;
            let mut out = Vec::new();
            announce(latest, &mut out);
            let text = String::from_utf8(out).expect("ascii");
            let date = text.strip_prefix("\r\n250-FUTURERELEASE 2592000 ").expect("the keyword");
            assert_eq!(at(date), Some(latest), "{date}");
        }
    }

    #[test]
    fn intervals_have_one_to_nine_digits_and_no_zero_in_front() {
        let known = |text: &str| Release::hold_for(text.as_bytes());
        assert_eq!(known("1"), Some(Release::After(Duration::from_secs(1))));
        assert_eq!(known("999999999"), Some(Release::After(Duration::from_secs(999_999_999))));
        for wrong in ["", "0", "01", "-1", "1.5", "1234567890", "x"] {
            assert_eq!(known(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_past_is_at_once() {
        assert_eq!(Release::After(Duration::from_secs(5)).of(1000), Some(6000));
        assert_eq!((Release::At(2).of(1999), Release::At(2).of(2000)), (Some(2000), None));
    }
}
