//! What our processes, and administrators, say to each other: typed messages, one file per peer.

pub mod codec;
pub mod control;
pub mod engine;
pub mod keyholder;
pub mod passwords;
pub mod shelf;
pub mod supervisor;
