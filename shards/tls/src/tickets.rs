//! Tickets that are good only where the same is asked of clients: a session that began where nobody must show a certificate
//! is not taken up where one is required.

use std::fmt;
use std::sync::Arc;

use rustls::server::ProducesTickets;

use crate::limits::TICKET_BYTES_MAX;

/// Bytes of a mark.
const MARK_BYTES: usize = size_of::<u64>();

/// All tickets of a process, as one listener sees them.
pub(crate) struct Marked {
    pub(crate) tickets: Arc<dyn ProducesTickets>,
    /// What stands in front of each session's state.
    pub(crate) mark: u64,
}

impl fmt::Debug for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Marked({:x})", self.mark)
    }
}

impl ProducesTickets for Marked {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        // The client's certificates are in it, and whatever the client has sent with them.
        if plain.len() > TICKET_BYTES_MAX {
            return None;
        }
        let mut marked = Vec::with_capacity(MARK_BYTES + plain.len());
        marked.extend_from_slice(&self.mark.to_be_bytes());
        marked.extend_from_slice(plain);
        self.tickets.encrypt(&marked)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut marked = self.tickets.decrypt(cipher)?;
        let is_ours = marked.starts_with(&self.mark.to_be_bytes());
        is_ours.then(|| marked.split_off(MARK_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hides nothing.
    #[derive(Debug)]
    struct Plain;

    impl ProducesTickets for Plain {
        fn enabled(&self) -> bool {
            true
        }

        fn lifetime(&self) -> u32 {
            1
        }

        fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
            Some(plain.to_vec())
        }

        fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
            Some(cipher.to_vec())
        }
    }

    #[test]
    fn a_ticket_goes_back_to_its_like_and_a_huge_one_is_none() {
        let [one, other] = [1, 2].map(|mark| Marked { tickets: Arc::new(Plain), mark });
        let ticket = one.encrypt(b"state").unwrap();
        assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        assert_eq!((other.decrypt(&ticket), one.decrypt(b"short")), (None, None));
        assert!(
            one.encrypt(&vec![0; TICKET_BYTES_MAX]).is_some() && one.encrypt(&vec![0; TICKET_BYTES_MAX + 1]).is_none()
        );
    }
}
