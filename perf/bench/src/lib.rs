//! Load for any SMTP server, and a receiving end for what it relays.
//!
//! [`source`] opens connections and sends numbered messages as fast as it is answered, or at a given rate;
//! [`sink`] accepts them and checks that nothing changed on the way; [`verify`] compares what the one saw
//! answered with what the other received; [`handshakes`] counts those of TLS; [`probe`] measures the disk. They speak to
//! any mail server and know nothing of Ringpost.
//!
//! Never here: the server's own code, DNS, retries of a refused message, doubts about a certificate.
#![forbid(unsafe_code)]

mod body;
mod dial;
mod encryption;
mod exchange;
pub mod handshakes;
mod limits;
mod measure;
mod pace;
pub mod probe;
mod progress;
mod reception;
mod report;
pub mod sink;
pub mod source;
pub mod verify;
mod workload;

pub use body::{Checked, check};
pub use measure::{Latency, Refusal, Step};
pub use reception::DropAt;
pub use workload::{Share, Sizes};
