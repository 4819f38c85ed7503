//! How urgent a message is on its way: MT-PRIORITY of MAIL (RFC 6710).

/// The value: from `-9` to `9`, one digit, 0 without a sign.
pub(crate) fn parse(value: &[u8]) -> Option<i8> {
    match *value {
        [digit @ b'0'..=b'9'] => Some((digit - b'0') as i8),
        [b'-', digit @ b'1'..=b'9'] => Some(-((digit - b'0') as i8)),
        _ => None,
    }
}

/// Appends the parameter of MAIL.
pub(crate) fn write(priority: i8, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(" MT-PRIORITY={priority}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for priority in -9..=9 {
            let mut out = Vec::new();
            write(priority, &mut out);
            assert_eq!(parse(out.strip_prefix(b" MT-PRIORITY=").expect("the parameter")), Some(priority));
        }
        for wrong in ["", "-", "-0", "+1", "01", "10", "-10", "1.5", "x", " 1"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
