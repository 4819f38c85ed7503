//! The client's side, the mirror image of `server`. `session.rs` holds state and dispatch; `incoming.rs` gathers replies;
//! `hello.rs` opens, `starttls.rs` asks for encryption, `auth.rs` logs in, `scram.rs` without saying the password;
//! `envelope.rs` speaks MAIL, RCPT, DATA and keeps what was answered to each recipient; `lmtp.rs` is the
//! variant with a reply for each of them; `patience.rs` says how long is waited for what.

mod auth;
mod envelope;
mod hello;
mod incoming;
mod lmtp;
mod patience;
mod scram;
mod session;
mod starttls;

pub use auth::Login;
pub use envelope::{Envelope, RecipientResult, Requests};
pub use incoming::RemoteReply;
pub use patience::Patience;
pub use scram::{Challenge, Signed};
pub use session::{Event, Session};
pub use starttls::StartTls;

pub use crate::input::Stuffer;
