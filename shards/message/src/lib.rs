//! RFC 5322 as far as a mail transfer agent needs it: what stands in front of a message, what its header says, and the report
//! when it could not be delivered. Pure functions from bytes to bytes; the time is an argument.
//!
//! Deliberately absent: MIME, addresses in header fields, any change to a message that passes through but the `From:` of own
//! users who are to be masqueraded.

#![forbid(unsafe_code)]

pub mod date;
pub mod dsn;
mod fold;
pub mod headers;
pub mod limits;
pub mod masquerade;
pub mod received;
pub mod spam;
