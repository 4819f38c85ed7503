//! Addresses: what a client says and what a table lists, in one place so that they are compared by one rule.
//!
//! A mail address is `local@domain` (RFC 5321 §4.1.2, RFC 6531 §3.3). This room splits, checks and normalises
//! addresses, domains and networks. It never looks anything up, and never allocates on the way of an ordinary RCPT:
//! parsed addresses borrow the text they were read from, and [`Folded`] keeps short texts on the stack.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod domain;
pub mod limits;
mod mailbox;
mod network;
mod normalise;

pub use domain::{Domain, is_domain_name, parents, wildcard_matches};
pub use mailbox::{
    AddressError, DomainPart, ForwardPath, Mailbox, ReversePath, parse_literal, split_address, strip_extension,
    unquote_local,
};
pub use network::{Network, NetworkSet, canonical_ip, parse_ip};
pub use normalise::{Folded, FoldedAddress};
