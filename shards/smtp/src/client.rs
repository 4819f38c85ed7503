//! The client's side, the mirror image of `server`. `session.rs` holds state and dispatch; `incoming.rs` gathers replies;
//! `hello.rs` opens, `starttls.rs` asks for encryption; `envelope.rs` speaks MAIL, RCPT, DATA and keeps what was answered to each recipient; `lmtp.rs` is the
//! variant with a reply for each of them.

mod envelope;
mod hello;
mod incoming;
mod lmtp;
mod session;
mod starttls;

pub use envelope::{Envelope, RecipientResult};
pub use incoming::RemoteReply;
pub use session::{Event, Session};
pub use starttls::StartTls;

pub use crate::input::Stuffer;
