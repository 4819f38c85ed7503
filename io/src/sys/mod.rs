//! System calls that others need, made safe. Each file is one concern; nothing here waits, and nothing knows mail.

mod calls;
mod descriptors;
mod fiber;
mod group;
mod identity;
mod lock;
#[cfg(feature = "pam")]
mod pam;
mod passwd;
mod peer;
mod priority;
mod resources;
mod sandbox;
mod sockets;
mod user;

pub use calls::{Calls, keep_calls};
pub use descriptors::{keep_descriptors, packet_pair, receive, send};
pub use fiber::{Fiber, Stack, pause};
pub use group::{group, group_below, group_names_below};
pub use identity::{die_with_parent, hide_memory, ignore_broken_pipes, no_new_privileges};
pub use lock::{Lock, LockError};
#[cfg(feature = "pam")]
pub use pam::{Pam, pam};
pub use passwd::{User, user, user_below};
pub use peer::{Credentials, credentials, port_owner};
pub use priority::{Step, step_back};
pub use resources::{Limit, Resource, limit, raise};
pub use sandbox::{Degree, Power, Room, confine, keep_powers};
pub use sockets::{connecting_socket, is_unix, listen_socket, listen_unix_socket, local_address, unix_socket};
pub use user::{as_user, become_user, groups_of, name_of};

/// Tests that hide or read this process's own `/proc` entries take turns.
#[cfg(test)]
static PROC_SELF: std::sync::Mutex<()> = std::sync::Mutex::new(());
