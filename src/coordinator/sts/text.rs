//! The two texts of MTA-STS: the TXT record that says that there is a policy (RFC 8461 §3.1), and the policy (§3.2).

use serde::{Deserialize, Serialize};

use crate::limits::{STS_AGE_MAX, STS_PATTERNS};

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// Whether to obey it.
    pub mode: Mode,
    /// Exchangers, lower case; `*.` in front stands for one label.
    pub patterns: Vec<String>,
    /// How long to believe it, in seconds.
    pub max_age: u64,
}

/// Whether to obey a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Obey.
    Enforce,
    /// Report alone.
    Testing,
    /// There is none any more.
    None,
}

/// The number of the policy in force, if exactly one of these TXT records tells it.
pub fn id(texts: &[String]) -> Option<String> {
    let mut records = texts.iter().filter(|text| text.starts_with("v=STSv1"));
    let (record, None) = (records.next()?, records.next()) else { return None };
    let mut fields = record.split(';').map(str::trim);
    if fields.next() != Some("v=STSv1") {
        return None;
    }
    let id = fields.find_map(|field| field.strip_prefix("id=")).map(str::trim)?;
    let good = (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    good.then(|| id.to_owned())
}

impl Text {
    /// Reads a policy. Fields that are not known are passed over.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let (mut version, mut mode, mut max_age, mut patterns) = (None, None, None, Vec::new());
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.trim() {
                "version" if version.is_none() => version = Some(value),
                "mode" if mode.is_none() => mode = Some(value),
                "max_age" if max_age.is_none() => max_age = value.parse::<u64>().ok(),
                "mx" if patterns.len() < STS_PATTERNS => patterns.push(value.to_ascii_lowercase()),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err("its version is not STSv1".to_owned());
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err("its mode is none of enforce, testing and none".to_owned()),
        };
        let max_age = max_age.ok_or("it has no max_age")?.min(STS_AGE_MAX.as_secs());
        if patterns.is_empty() && mode != Mode::None {
            return Err("it names no mx".to_owned());
        }
        Ok(Self { mode, patterns, max_age })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_tell_a_number_or_nothing() {
        let of = |texts: &[&str]| id(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["v=STSv1; id=20160831085700Z;"]).as_deref(), Some("20160831085700Z"));
        assert_eq!(of(&["other", "v=STSv1;id=1"]).as_deref(), Some("1"));
        for wrong in ["v=STSv1", "v=STSv1; id=", "v=STSv1; id=a/b", "v=STSv10; id=1", "v=spf1 -all"] {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
        assert_eq!(of(&["v=STSv1; id=1", "v=STSv1; id=2"]), None, "RFC 8461 §3.1: not one alone");
        assert_eq!(of(&[&format!("v=STSv1; id={}", "1".repeat(33))]), None);
    }

    #[test]
    fn policies_are_read_whole_or_not() {
        let good =
            "version: STSv1\r\nmode: enforce\r\nmx: MX.a.example\r\nmx: *.b.example\r\nnew: x\r\nmax_age: 604800\r\n";
        let policy = Text::parse(good.as_bytes()).unwrap();
        assert_eq!(policy.patterns, ["mx.a.example", "*.b.example"]);
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, 604_800));
        assert_eq!(Text::parse(b"version:STSv1\nmode:none\nmax_age:9999999999").unwrap().max_age, 31_557_600);
        for (text, why) in [
            ("mode: enforce\nmx: a\nmax_age: 1", "version"),
            ("version: STSv1\nmode: hard\nmx: a\nmax_age: 1", "mode"),
            ("version: STSv1\nmode: enforce\nmx: a", "max_age"),
            ("version: STSv1\nmode: enforce\nmx: a\nmax_age: soon", "max_age"),
            ("version: STSv1\nmode: testing\nmax_age: 1", "mx"),
        ] {
            assert!(Text::parse(text.as_bytes()).unwrap_err().contains(why), "{text}");
        }
    }
}
