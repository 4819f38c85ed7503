//! RFC 5322 as far as a mail transfer agent needs it: what stands in front of a message, what its header says, the report when
//! it could not be delivered, and such reports of others. Pure functions from bytes to bytes; the time is an argument.
//!
//! Deliberately absent: MIME beyond reports, addresses in header fields, any change to a message that passes through but the `From:` of own
//! users who are to be masqueraded.

#![forbid(unsafe_code)]

pub mod date;
pub mod dsn;
pub mod feedback;
mod fold;
pub mod headers;
pub mod limits;
pub mod masquerade;
pub mod received;
pub mod spam;
