//! Tables: what an entry means for the service that asks (grammar §7), and lookups in memory.

mod addresses;
pub mod cdb;
mod domains;
pub mod file;
mod glob;
mod patterns;
pub mod service;
mod sources;
mod words;

pub use addresses::AddressSet;
pub use domains::DomainSet;
pub use patterns::Patterns;
pub use sources::SourceSet;
pub use words::WordSet;

pub(crate) use glob::Glob;
