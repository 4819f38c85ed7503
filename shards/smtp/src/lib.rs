//! RFC 5321 as two state machines: what a server and what a client says, and nothing else. The client also speaks LMTP
//! (RFC 2033).
//!
//! A session is fed bytes and says what must be done next. It never does I/O, never reads a clock (it is told `now`), never
//! logs, and never panics on what a peer sends: a mistake of the peer becomes a reply, in the end a closed connection.
//! What is deliberately absent: TLS itself (the caller has it), what passwords are right, how they are hashed, rules, queues, and the text of a message beyond its line ends.
//!
//! Doors: [`server::Session`] with [`Transaction`] and [`Reply`]; [`client::Session`] with [`Stuffer`].

#![forbid(unsafe_code)]

mod command;
pub mod dsn;
mod extensions;
mod input;
pub mod limits;
mod mechanism;
mod path;
mod priority;
pub mod proxy;
mod release;
mod reply;
mod secret;
mod transaction;

pub mod client;
pub mod server;

pub use extensions::Offered;
pub use input::Stuffer;
pub use mechanism::{Mechanism, Mechanisms};
pub use release::Release;
pub use reply::{Reply, Status};
pub use secret::Secret;
pub use server::Policy;
pub use transaction::{BodyType, Transaction};
