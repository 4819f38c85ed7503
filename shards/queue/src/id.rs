//! The name of a message in its queue: 64 bits that travel between shards instead of envelopes (S127).

use std::fmt;
use std::str::FromStr;

/// A message's id: its slice in the top 16 bits, its number in that slice below. Written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl MessageId {
    /// The id of the message with this number (below 2^48) in this slice.
    pub fn new(slice: u16, number: u64) -> Self {
        debug_assert!(number <= NUMBER_MAX, "numbers are 48 bits");
        Self(u64::from(slice) << NUMBER_BITS | number & NUMBER_MAX)
    }

    /// The slice whose journal holds it.
    pub fn slice(self) -> u16 {
        (self.0 >> NUMBER_BITS) as u16
    }

    /// Its number in the slice; never used twice.
    pub fn number(self) -> u64 {
        self.0 & NUMBER_MAX
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for MessageId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match digits {
            true => u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAnId),
            false => Err(NotAnId),
        }
    }
}

/// The text is not 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message id has 16 hexadecimal digits")]
pub struct NotAnId;

const NUMBER_BITS: u32 = 48;
const NUMBER_MAX: u64 = (1 << NUMBER_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = MessageId::new(3, 0x1234);
        assert_eq!(id.to_string(), "0003000000001234");
        assert_eq!("0003000000001234".parse(), Ok(id));
        assert_eq!((id.slice(), id.number()), (3, 0x1234));
        for wrong in ["", "3", "000300000000123", "00030000000012345", "+003000000001234", "zzzzzzzzzzzzzzzz"] {
            assert_eq!(wrong.parse::<MessageId>(), Err(NotAnId));
        }
    }

    #[test]
    fn s127_an_id_is_64_bits() {
        assert_eq!(size_of::<MessageId>(), 8);
    }
}
