//! Every bound of the routes, with its reason.

use std::time::Duration;

/// What one route and one shard may do at once. The defaults are the field's (Postfix: 20 per destination, KumoMTA: 32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one route.
    pub connections_per_route: usize,
    /// Connections of all routes of a shard: descriptors and ports end somewhere above.
    pub connections: usize,
    /// Messages on one connection before it is closed, so that a site can balance its servers.
    pub messages_per_connection: u64,
    /// Tickets of one route that wait at its owner; further ones go home, so that no route fills the shard.
    pub tickets_per_route: usize,
    /// How long a connection with nothing to send is kept for the next message.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_route: 20,
            connections: 4_000,
            messages_per_connection: 1_000,
            tickets_per_route: 10_000,
            idle: Duration::from_secs(5),
        }
    }
}

/// First pause of a route that could not be reached; doubled each time.
pub const BACK_OFF_MIN: Duration = Duration::from_secs(5);
/// Longest pause. Short of the shortest retry, so that a message never finds the pause of its own first attempt.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(50);
const _: () = assert!(BACK_OFF_MAX.as_secs() < 54, "the first retry is after 1 min ± 10%");
/// How long a source address is left out that this machine did not have when it was to be used.
pub const SOURCE_PAUSE: Duration = Duration::from_secs(60);
/// Routes kept without work or connections, for their back-off and their hosts; the oldest are forgotten beyond it.
pub const IDLE_ROUTES_MAX: usize = 10_000;
