//! The server's side. `session.rs` holds state and dispatch; each other file one part of the dialogue, in its order.

mod auth;
mod data;
mod hello;
mod mail;
mod rcpt;
mod session;
mod starttls;

pub use auth::{Authentication, Judgement, Logins, Mechanism, Mechanisms, Proof, Secret};
pub use session::{Policy, Protocol, Session, Step};
pub use starttls::Encryption;
