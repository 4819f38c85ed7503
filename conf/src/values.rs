//! Words that stand for numbers: durations, sizes, ports (grammar §2).

use std::time::Duration;

use ringpost_address::{is_domain_name, parse_literal};

/// Largest first, in milliseconds.
const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `30s`, `1h30m`, `50ms`: whole numbers with units, largest first.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (number, after) = split_digits(rest)?;
        let unit_bytes = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let unit = UNITS[next_unit..].iter().position(|(name, _)| *name == &after[..unit_bytes])? + next_unit;
        total_ms = total_ms.checked_add(number.checked_mul(UNITS[unit].1)?)?;
        next_unit = unit + 1;
        rest = &after[unit_bytes..];
    }
    (next_unit > 0).then(|| Duration::from_millis(total_ms))
}

/// Bytes, or `K M G T`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_digits(text)?;
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// `5%`, at most 100.
pub(crate) fn percent(text: &str) -> Option<u8> {
    let (number, unit) = split_digits(text)?;
    u8::try_from(number).ok().filter(|n| *n <= 100 && unit == "%")
}

/// Whether it is a name to say in a greeting: a domain, or an address literal (RFC 5321 §4.1.3).
pub(crate) fn is_greeting_name(text: &str) -> bool {
    is_domain_name(text) || parse_literal(text).is_some()
}

/// So many in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long; never zero.
    pub per: Duration,
}

/// `100/s`, `5/10s`, `500/d`.
pub(crate) fn rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once('/')?;
    let count = u32::try_from(number(count)?).ok().filter(|count| *count > 0)?;
    let per = match per {
        "s" | "m" | "h" | "d" | "w" => duration(&format!("1{per}"))?,
        _ => duration(per)?,
    };
    (!per.is_zero()).then_some(Rate { count, per })
}

/// The shortest way to write a duration.
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, ms) in UNITS {
        if rest >= ms {
            text.push_str(&format!("{}{name}", rest / ms));
            rest %= ms;
        }
    }
    text
}

/// The shortest way to write a size.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    unit.map_or(bytes.to_string(), |(name, shift)| format!("{}{name}", bytes >> shift))
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let per = show_duration(self.per);
        write!(f, "{}/{}", self.count, per.strip_prefix('1').filter(|unit| unit.len() == 1).unwrap_or(&per))
    }
}

/// A whole number without sign.
pub(crate) fn number(text: &str) -> Option<u64> {
    split_digits(text).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

/// A port, or the name of a service that has to do with mail or the page.
pub(crate) fn port(text: &str) -> Option<u16> {
    const SERVICES: [(&str, u16); 9] = [
        ("smtp", 25),
        ("mail", 25),
        ("lmtp", 24),
        ("smtps", 465),
        ("submissions", 465),
        ("submission", 587),
        ("msa", 587),
        ("http", 80),
        ("https", 443),
    ];
    match number(text) {
        Some(number) => u16::try_from(number).ok().filter(|port| *port > 0),
        None => SERVICES.iter().find(|(name, _)| *name == text).map(|(_, port)| *port),
    }
}

/// `2-9`, `0,2,4-5`.
pub(crate) fn cores(text: &str) -> Option<Vec<usize>> {
    const CORE_MAX: u64 = 4096;
    let mut cores = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last > CORE_MAX {
            return None;
        }
        cores.extend((first..=last).map(|core| usize::try_from(core).expect("bounded above")));
    }
    let mut unique = cores.clone();
    unique.sort_unstable();
    unique.dedup();
    (unique.len() == cores.len()).then_some(cores)
}

fn split_digits(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("30s", 30_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("1w", 604_800_000),
            ("2w", 1_209_600_000),
            ("50ms", 50),
            ("1m50ms", 60_050),
            ("0s", 0),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
        for bad in ["", "4", "4x", "30m1h", "1h1h", "h", "1.5h", "-1h", "99999999999999999999s", "999999999999999999w"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn other_numbers() {
        assert_eq!((size("35M"), size("10"), size("1T")), (Some(35 << 20), Some(10), Some(1 << 40)));
        assert_eq!((size("M"), size("1X"), size("99999999999T"), size("")), (None, None, None, None));
        assert_eq!((percent("5%"), percent("101%"), percent("5")), (Some(5), None, None));
        assert_eq!((port("submission"), port("25"), port("0"), port("70000")), (Some(587), Some(25), None, None));
        let shown = |text: &str| rate(text).map(|rate| rate.to_string());
        assert_eq!(
            (shown("100/s"), shown("5/10s"), shown("500/1d")),
            (Some("100/s".into()), Some("5/10s".into()), Some("500/d".into()))
        );
        assert_eq!((rate("5"), rate("0/s"), rate("5/0s"), rate("5/x"), rate("/s")), (None, None, None, None, None));
        assert_eq!((show_size(35 << 20), show_size(10), show_size(0)), ("35M".into(), "10".into(), "0".into()));
        assert_eq!(cores("2-4,7"), Some(vec![2, 3, 4, 7]));
        assert_eq!((cores("4-2"), cores("1,1"), cores("x"), cores("0-99999999")), (None, None, None, None));
    }
}
