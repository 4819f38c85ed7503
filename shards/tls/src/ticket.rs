//! Whether a client comes again: a look at its first message for a ticket, before anything is computed.

/// `handshake` (RFC 8446 §5.1), and `client_hello` in it (§4).
const RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Extensions: `session_ticket` (RFC 5077 §3.2) and `pre_shared_key` (RFC 8446 §4.2.11).
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;

/// The ticket that a client shows first, if what it has said is in one record. Anything unusual has none.
pub(crate) fn of_hello(wire: &[u8]) -> Option<&[u8]> {
    let mut wire = Reader(wire);
    if wire.number(1)? != usize::from(RECORD) {
        return None;
    }
    wire.take(2)?;
    let mut hello = Reader(wire.vector(2)?);
    if hello.number(1)? != usize::from(CLIENT_HELLO) {
        return None;
    }
    let mut hello = Reader(hello.vector(3)?);
    // Version and random, session, ciphers, compressions.
    hello.take(2 + 32)?;
    for width in [1, 2, 1] {
        hello.vector(width)?;
    }
    let mut extensions = Reader(hello.vector(2)?);
    let mut ticket = None;
    while let (Some(kind), Some(data)) = (extensions.number(2), extensions.vector(2)) {
        if kind == usize::from(SESSION_TICKET) && !data.is_empty() {
            ticket = Some(data);
        } else if kind == usize::from(PRE_SHARED_KEY) {
            let mut identities = Reader(Reader(data).vector(2)?);
            ticket = identities.vector(2);
        }
    }
    ticket
}

/// Takes fields from the front.
struct Reader<'w>(&'w [u8]);

impl<'w> Reader<'w> {
    fn take(&mut self, count: usize) -> Option<&'w [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes.
    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes with their count in front, a number of so many bytes.
    fn vector(&mut self, width: usize) -> Option<&'w [u8]> {
        let count = self.number(width)?;
        self.take(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello with these extensions.
    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let of = |width: usize, bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[4 - width..], bytes].concat();
        let extensions = extensions.iter().flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &of(2, data)].concat());
        let parts = [vec![3, 3], vec![7; 32], of(1, &[9; 32]), of(2, &[0x13, 1]), of(1, &[0])];
        let body = [parts.concat(), of(2, &extensions.collect::<Vec<u8>>())].concat();
        [vec![22, 3, 1], of(2, &[vec![1], of(3, &body)].concat())].concat()
    }

    #[test]
    fn tickets_are_found_in_both_places_and_nowhere_else() {
        // Identities with their ages, then binders.
        let shared = [&[0, 10, 0, 4][..], b"TICK", &[0; 4], &[0, 5, 4, 1, 2, 3, 4]].concat();
        assert_eq!(of_hello(&hello(&[(0, b"x"), (35, b""), (41, &shared)])), Some(&b"TICK"[..]));
        assert_eq!(of_hello(&hello(&[(35, b"OLD"), (0, b"x")])), Some(&b"OLD"[..]));
        for none in [&[(35, &b""[..])][..], &[(0, b"x")], &[]] {
            assert_eq!(of_hello(&hello(none)), None);
        }
    }

    #[test]
    fn whatever_is_cut_off_has_none() {
        let whole = hello(&[(35, b"OLD")]);
        assert!(of_hello(&whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(of_hello(&whole[..end]), None, "{end}");
        }
        assert_eq!(of_hello(b"EHLO client.example\r\n"), None);
        assert_eq!(of_hello(&[255; 64]), None);
    }
}
