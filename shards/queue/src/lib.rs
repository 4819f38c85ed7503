//! A slice of the queue on disk: one shard's messages, their envelopes, and when each is due.
//!
//! The door is [`Queue`]. A message goes in with [`Queue::submit`], which returns when it is durable, and its envelopes are
//! then in flight: the caller settles or releases each. What is deferred comes back from [`Queue::claim_due`] when its time
//! has come. The journal behind it, and every rule that keeps it safe, is described in `journal/mod.rs`.
//!
//! It never parses mail, speaks SMTP, opens a socket, reads a clock or knows why an envelope is where it is.

#![forbid(unsafe_code)]

mod body;
mod due;
mod envelope;
mod id;
mod index;
pub mod inspect;
mod journal;
pub mod limits;
mod options;
mod queue;
mod read;
pub mod retry;
mod scheduler;
mod told;

pub use body::ChunkedBody;
pub use envelope::{
    Body, Counts, Flags, Listed, NewEnvelope, NewMessage, OpenError, ReadError, Report, SegmentCounts, Space, State,
    Status, Stored, StoredAction, StoredEnvelope, SubmitError,
};
pub use id::{MessageId, NotAnId};
pub use options::{Options, Plant};
pub use queue::Queue;
pub use read::Loaded;
pub use scheduler::{Backend, Scheduler};
pub use told::Told;
