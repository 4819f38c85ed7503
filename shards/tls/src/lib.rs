//! TLS that knows no mail: bytes from the wire in, plain bytes out, and back. The private key is somewhere else.
//!
//! A server side begins with [`Hello`], which collects the client's first message. What it answers needs the private key:
//! that step is a [`Flight`], a value that may be sent to a thread where waiting for a signature hurts nobody. It comes back
//! as a [`Channel`], and from then on nothing waits. Certificates are chosen by name in `names.rs`; the key is asked for a
//! signature through [`Signs`] (`remote_key.rs`).
//!
//! Never here: I/O, clocks, threads of its own, private keys, and a crypto library: the caller gives the provider.

#![forbid(unsafe_code)]

mod accept;
mod certificate;
mod channel;
mod connect;
mod failure;
pub mod limits;
mod names;
mod remote_key;

pub use accept::{Flight, Hello, Rejected, Server};
pub use certificate::{Algorithm, Certificate};
pub use channel::{Channel, Secured};
pub use connect::{Connector, Refused};
pub use failure::{Failure, Fault};
pub use names::Offer;
pub use remote_key::{KeyId, Signs};
