//! Dates of RFC 5322 §3.3 in UTC, by hand: one is written for every message that comes in.

/// Appends `Wed, 25 Nov 2026 12:17:12 +0000`. `ms`: milliseconds since the Unix epoch; years above 9999 are cut to that.
pub fn write(out: &mut Vec<u8>, ms: u64) {
    let seconds = (ms / 1000).min(YEAR_10000_SECONDS - 1);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    // 1 January 1970 was a Thursday.
    out.extend_from_slice(WEEKDAYS[((days + 3) % 7) as usize]);
    out.extend_from_slice(b", ");
    if day >= 10 {
        out.push(digit(day / 10));
    }
    out.push(digit(day));
    out.push(b' ');
    out.extend_from_slice(MONTHS[month as usize]);
    out.push(b' ');
    two(out, year / 100);
    two(out, year % 100);
    out.push(b' ');
    two(out, second / 3600);
    out.push(b':');
    two(out, second / 60 % 60);
    out.push(b':');
    two(out, second % 60);
    out.extend_from_slice(b" +0000");
}

/// Year, month (0–11), day (1–31) of a day since 1 January 1970. Years begin in March, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12;
    (era * 400 + year + u64::from(month < 2), month, day_of_month)
}

fn two(out: &mut Vec<u8>, value: u64) {
    out.push(digit(value / 10));
    out.push(digit(value));
}

fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

const YEAR_10000_SECONDS: u64 = 253_402_300_800;
const WEEKDAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ms: u64) -> String {
        let mut out = Vec::new();
        write(&mut out, ms);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn agrees_with_a_calendar() {
        assert_eq!(text(0), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(text(951_782_400_000), "Tue, 29 Feb 2000 00:00:00 +0000");
        // Every day for 200 years, and odd seconds of it.
        for day in 0..73_000_i64 {
            let second = day * 86_400 + day * 7919 % 86_400;
            let expected =
                jiff::Timestamp::from_second(second).unwrap().strftime("%a, %-d %b %Y %H:%M:%S +0000").to_string();
            assert_eq!(text(second as u64 * 1000 + 999), expected);
        }
    }

    #[test]
    fn the_end_of_time_is_a_date_too() {
        assert_eq!(text(u64::MAX), "Fri, 31 Dec 9999 23:59:59 +0000");
    }
}
