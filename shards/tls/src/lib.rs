//! TLS that knows no mail: bytes from the wire in, plain bytes out, and back. The private key is somewhere else.
//!
//! A server side begins with [`Hello`], which collects the client's first message. What it answers needs the private key:
//! that step is a [`Flight`], a value that may be sent to a thread where waiting for a signature hurts nobody. It comes back
//! as a [`Channel`], and from then on nothing waits. A client that comes again with a ticket needs no signature and no other
//! thread: [`Flight::resume`]. Certificates are chosen by name in `names.rs`; the key is asked for a signature through
//! [`Signs`] (`remote_key.rs`). Whether clients must show certificates, and what is noted of them, is in `clients.rs`.
//!
//! Never here: I/O, clocks, threads of its own, private keys, and a crypto library: the caller gives the provider.

#![forbid(unsafe_code)]

mod accept;
mod certificate;
mod channel;
mod clients;
mod connect;
mod dane;
mod failure;
mod judge;
pub mod limits;
mod names;
mod remote_key;
mod shelf;
mod subject;
mod terms;
mod ticket;
mod tickets;

pub use accept::{Flight, Hello, Rejected, Server};
pub use certificate::{Algorithm, Certificate};
pub use channel::{Channel, Secured};
pub use clients::{Clients, Demand, Shown};
pub use connect::{Connector, Refused};
pub use dane::{Digest, Digests, is_usable, needs_name};
pub use failure::{Failure, Fault};
pub use names::Offer;
pub use remote_key::{KeyId, Signs};
pub use shelf::Shelf;
pub use subject::Subject;
pub use terms::{Terms, Version};
