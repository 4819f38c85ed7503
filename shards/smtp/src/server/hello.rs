//! HELO and EHLO (RFC 5321 §4.1.1.1).

use super::session::{Phase, Protocol, Session, Step};
use crate::limits::DOMAIN_BYTES_MAX;
use crate::{extensions, reply};

impl Session {
    /// The name is kept as told and believed by nobody; only its form is checked, since it stands in `Received:`.
    pub(super) fn hello<'i, 'a>(
        &mut self,
        protocol: Protocol,
        arguments: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Step<'i, 'a>> {
        let printable = arguments.iter().all(u8::is_ascii_graphic);
        let name = std::str::from_utf8(arguments).ok().filter(|name| !name.is_empty() && printable);
        let Some(name) = name.filter(|name| name.len() <= DOMAIN_BYTES_MAX) else {
            return self.wrong(reply::HELLO_ARGUMENT, out);
        };
        self.helo = name.into();
        self.protocol = protocol;
        match protocol {
            Protocol::Smtp => reply::hello(&self.policy.hostname, out),
            Protocol::Esmtp => {
                let (may_start, mechanisms) = (self.may_start_tls(), self.mechanisms());
                let may_ask = self.may_become_own();
                let latest = self.latest_release.filter(|_| may_ask);
                extensions::announce(&self.policy, may_start, self.encrypted, mechanisms, may_ask, latest, out);
            }
        }
        // EHLO in the middle resets like RSET (§4.1.4).
        let step = self.abort_transaction();
        self.phase = Phase::Ready;
        step
    }
}
