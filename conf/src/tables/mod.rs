//! Tables: what an entry means for the service that asks (grammar §7), which keys a question becomes, and lookups in memory.
//! Whoever needs a network or a disk to answer is only named ([`crate::Table`]).

/// Where helpers for tables are, below `--root`; the first that has one counts.
pub const HELPER_DIRECTORIES: [&str; 9] = [
    "/usr/libexec/ringpost",
    "/usr/lib/ringpost",
    "/usr/local/libexec/ringpost",
    "/usr/libexec/smtpd",
    "/usr/libexec/opensmtpd",
    "/usr/lib/opensmtpd",
    "/usr/lib/x86_64-linux-gnu/opensmtpd",
    "/usr/local/libexec/smtpd",
    "/usr/local/libexec/opensmtpd",
];

mod addresses;
pub mod cdb;
mod domains;
mod entry;
pub mod file;
mod glob;
mod key;
mod list;
mod lookup;
mod mapped;
mod memory;
mod patterns;
mod relay_url;
mod service;
mod shown;
mod sources;
mod words;

pub use addresses::AddressSet;
pub use domains::DomainSet;
pub use entry::{
    AddressPattern, AliasTarget, Certificate, Credentials, DkimKey, EntryError, HostName, Pem, Secret, UserName,
    UserRecord, Value, is_known_scheme, is_password_hash, is_user_name,
};
pub use key::{Key, Keys, stored_key};
pub use list::{List, SourceAddresses};
pub use lookup::Answer;
pub use mapped::Mapped;
pub use memory::{MemoryTable, Part};
pub use patterns::Patterns;
pub use relay_url::RelayUrlError;
pub use service::ServiceKind;
pub use shown::shown;
pub use sources::SourceSet;
pub use words::WordSet;

pub use crate::model::RelayHost;
pub(crate) use glob::Glob;
