//! What a run takes from the wall clock: its name, and the date of its messages.

use std::time::SystemTime;

use crate::workload::mix;

/// A name for a run, from the clock: 8 hex digits.
pub fn clock_name() -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_nanos() as u64);
    format!("{:08x}", mix(nanos ^ u64::from(std::process::id())) as u32)
}

/// The time now as RFC 5322 §3.3 writes it, in UTC.
pub fn rfc5322_now() -> String {
    let ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64);
    let mut date = Vec::new();
    ringpost_message::date::write(&mut date, ms);
    String::from_utf8(date).expect("a date is ASCII")
}
