//! The program that other programs know as `sendmail`: a message on standard input goes to the server by SMTP or, while
//! there is none, into a directory from which it is taken as soon as there is one.
//!
//! `options.rs` reads the command line as Postfix and sendmail do, `message.rs` makes a message of what was typed,
//! `addresses.rs` finds recipients in header fields, `submission.rs` is the two together, ready to travel;
//! `dialogue.rs` speaks to the server, `spool.rs` keeps what it does not take now, `drop.rs` what other users have sent
//! meanwhile.

pub mod addresses;
pub mod dialogue;
pub mod drop;
pub mod message;
pub mod options;
pub mod spool;
pub mod submission;
