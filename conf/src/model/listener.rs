//! Where the server listens, and what a session there is.

use std::net::IpAddr;

use super::Line;

/// One `listen on` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where; names and groups are resolved by the supervisor.
    pub place: Where,
    /// `inet4` or `inet6`, or both.
    pub family: Family,
    /// The port, `--port-offset` included.
    pub port: u16,
    /// The name in the greeting and in `Received:`; by default [`Names::server`].
    pub hostname: String,
    /// The tag of its sessions; empty if none.
    pub tag: String,
    /// Largest message in bytes; by default [`Smtp::message_bytes_max`].
    pub message_bytes_max: u64,
    /// The line that says so.
    pub line: Line,
}

/// What `listen on` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// `all`: one wildcard socket for each family.
    All,
    /// `egress`: the addresses of the interfaces with a default route.
    Egress,
    /// One address.
    Address(IpAddr),
    /// An interface, an interface group or a host name, in this order (`lo0` is the loopback interface everywhere).
    Name(String),
}

/// Which address families a listener uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Both.
    #[default]
    Both,
    /// `inet4`.
    V4,
    /// `inet6`.
    V6,
}
