//! The server's side. `session.rs` holds state and dispatch; each other file one part of the dialogue, in its order.

mod data;
mod hello;
mod mail;
mod rcpt;
mod session;
mod starttls;

pub use session::{Policy, Protocol, Session, Step};
pub use starttls::Encryption;
