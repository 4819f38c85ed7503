//! What is sent: sizes of messages, and shares of things that go wrong. Parsed from options, drawn by number,
//! so that two runs with the same numbers send the same messages.

use std::fmt;
use std::str::FromStr;

use crate::limits::{MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN};

/// Sizes of whole messages (headers and body, before dot-stuffing), in bytes.
///
/// Written `4k`, `1k-64k` (uniform), or a list with weights: `4k:90,1m:10`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    ranges: Vec<(u64, u64, u32)>,
    weight_total: u64,
}

impl Sizes {
    /// Always `bytes`, held within what a message may be.
    pub fn fixed(bytes: u64) -> Self {
        let bytes = bytes.clamp(MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX);
        Self { ranges: vec![(bytes, bytes, 1)], weight_total: 1 }
    }

    /// Size in bytes of message number `number`.
    pub fn draw(&self, number: u64) -> u64 {
        if let [(low, high, _)] = self.ranges[..]
            && low == high
        {
            return low;
        }
        let mut left = mix(number) % self.weight_total;
        for &(low, high, weight) in &self.ranges {
            if left < u64::from(weight) {
                return low + mix(number ^ 0x5eed) % (high - low + 1);
            }
            left -= u64::from(weight);
        }
        self.max()
    }

    /// Largest size that can be drawn, in bytes.
    pub fn max(&self) -> u64 {
        self.ranges.iter().map(|range| range.1).max().unwrap_or(MESSAGE_BYTES_MIN)
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (sizes, weight) = match part.split_once(':') {
                Some((sizes, weight)) => {
                    (sizes, weight.parse::<u32>().map_err(|_| format!("'{weight}' is not a weight"))?)
                }
                None => (part, 1),
            };
            let (low, high) = match sizes.split_once('-') {
                Some((low, high)) => (parse_bytes(low)?, parse_bytes(high)?),
                None => (parse_bytes(sizes)?, parse_bytes(sizes)?),
            };
            if low > high || low < MESSAGE_BYTES_MIN || high > MESSAGE_BYTES_MAX {
                return Err(format!("'{sizes}': sizes go from {MESSAGE_BYTES_MIN} to {MESSAGE_BYTES_MAX} bytes"));
            }
            ranges.push((low, high, weight));
        }
        let weight_total = ranges.iter().map(|range| u64::from(range.2)).sum();
        if weight_total == 0 {
            return Err("all weights are zero".into());
        }
        Ok(Self { ranges, weight_total })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (low, high, weight)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{low}")?;
            if low != high {
                write!(out, "-{high}")?;
            }
            if self.ranges.len() > 1 {
                write!(out, ":{weight}")?;
            }
        }
        Ok(())
    }
}

/// How often something goes wrong, and with which word: `450:5%`, `550` (always), `data:1%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Share<T> {
    /// What happens.
    pub what: T,
    /// How often, from 0 to 1.
    pub share: f64,
}

impl<T: FromStr> FromStr for Share<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, share) = text.split_once(':').unwrap_or((text, "100%"));
        let what = what.parse().map_err(|_| format!("'{what}' is not known here"))?;
        let percent = share.strip_suffix('%').ok_or_else(|| format!("'{share}' lacks a %"))?;
        let percent: f64 = percent.parse().map_err(|_| format!("'{share}' is not a share"))?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("'{share}' is not between 0% and 100%"));
        }
        Ok(Self { what, share: percent / 100.0 })
    }
}

/// One of `shares` for the drawing `number`, or none. Shares above 100 % together leave no room for none.
pub fn draw<T: Copy>(shares: &[Share<T>], number: u64) -> Option<T> {
    if shares.is_empty() {
        return None;
    }
    let mut left = (mix(number) >> 11) as f64 / (1u64 << 53) as f64;
    for each in shares {
        if left < each.share {
            return Some(each.what);
        }
        left -= each.share;
    }
    None
}

/// A well-spread number for each number (the finaliser of SplitMix64, Steele et al. 2014).
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `512`, `4k`, `1m` (powers of 1024).
fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        _ => (text, 1),
    };
    let count: u64 = digits.parse().map_err(|_| format!("'{text}' is not a size such as 4k"))?;
    count.checked_mul(unit).ok_or_else(|| format!("'{text}' is too large"))
}

/// `250ms`, `2s`, `1m`: a time as the options write it.
pub fn parse_time(text: &str) -> Result<std::time::Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{unit}' is not a unit of time (us, ms, s, m, h)")),
    };
    let count: f64 = digits.parse().map_err(|_| format!("'{text}' is not a time such as 250ms"))?;
    std::time::Duration::try_from_secs_f64(count * seconds).map_err(|_| format!("'{text}' is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_drawn_within_their_ranges() {
        let sizes: Sizes = "1k-2k:3,8k:1".parse().unwrap();
        let drawn: Vec<u64> = (0..4000).map(|number| sizes.draw(number)).collect();
        let large = drawn.iter().filter(|&&bytes| bytes == 8192).count();
        assert!((800..1200).contains(&large), "{large} of 4000");
        assert!(drawn.iter().all(|&bytes| bytes == 8192 || (1024..=2048).contains(&bytes)));
        assert_eq!(sizes.max(), 8192);
        assert_eq!("4k".parse::<Sizes>().unwrap(), Sizes::fixed(4096));
        assert!("9k-1k".parse::<Sizes>().is_err());
        assert!("12".parse::<Sizes>().is_err());
        assert!("4k:0".parse::<Sizes>().is_err());
    }

    #[test]
    fn shares_come_as_often_as_asked() {
        let shares = vec!["450:25%".parse::<Share<u16>>().unwrap(), "550:25%".parse().unwrap()];
        let hits = (0..10_000).filter_map(|number| draw(&shares, number)).filter(|&code| code == 550).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        assert!("450:5".parse::<Share<u16>>().is_err());
        assert!("450:120%".parse::<Share<u16>>().is_err());
        assert_eq!("550".parse::<Share<u16>>().unwrap().share, 1.0);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("250ms").unwrap().as_millis(), 250);
        assert_eq!(parse_time("2").unwrap().as_secs(), 2);
        assert!(parse_time("2 weeks").is_err());
    }
}
