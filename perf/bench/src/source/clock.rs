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
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Civil date from a day count, era by era (400 years are 146 097 days), years beginning in March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(march_month >= 10);
    let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month as usize];
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{weekday}, {day} {name} {year} {hour:02}:{minute:02}:{:02} +0000", second % 60)
}
