//! TLS that knows no mail: bytes from the wire in, plain bytes out, and back.
//!
//! Never here: I/O, clocks, threads of its own, private keys, and a crypto library: the caller gives the provider.

#![forbid(unsafe_code)]

mod channel;
mod connect;
mod failure;
pub mod limits;

pub use channel::{Channel, Secured};
pub use connect::{Connector, Refused};
pub use failure::{Failure, Fault};
