//! All that is known of a server at one moment, by shard and added up.

use serde::{Deserialize, Serialize};

use crate::counters::CountersSnapshot;
use crate::sites::{Classes, Tally};
use crate::stages::StagesSnapshot;

/// What a shard holds now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gauges {
    /// Client sessions open.
    pub sessions_open: u64,
    /// Messages in the queue.
    pub queue_messages: u64,
    /// Envelopes in the queue.
    pub queue_envelopes: u64,
    /// Of these, waiting for another attempt.
    pub queue_deferred: u64,
    /// Of these, being delivered.
    pub queue_in_flight: u64,
    /// Bytes of messages in the journal that are still needed.
    pub queue_bytes: u64,
    /// Journal segments that can be written to again.
    pub segments_free: u64,
    /// Journal segments that are being written, or hold messages.
    pub segments_active: u64,
    /// Journal segments of long-waiting messages.
    pub segments_cold: u64,
    /// Bytes of the journal for each byte still needed.
    pub journal_amplification: f64,
    /// Connections to next servers open.
    pub route_connections: u64,
    /// Share of its time that the shard works, 0 to 1.
    pub busy_ratio: f64,
    /// Whether new mail is refused for want of disk space.
    pub low_space: bool,
}

impl Gauges {
    /// Adds another shard's; ratios become the larger of the two.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            sessions_open,
            queue_messages,
            queue_envelopes,
            queue_deferred,
            queue_in_flight,
            queue_bytes,
            segments_free,
            segments_active,
            segments_cold,
            journal_amplification,
            route_connections,
            busy_ratio,
            low_space,
        } = self;
        for (mine, theirs) in [
            (sessions_open, other.sessions_open),
            (queue_messages, other.queue_messages),
            (queue_envelopes, other.queue_envelopes),
            (queue_deferred, other.queue_deferred),
            (queue_in_flight, other.queue_in_flight),
            (queue_bytes, other.queue_bytes),
            (segments_free, other.segments_free),
            (segments_active, other.segments_active),
            (segments_cold, other.segments_cold),
            (route_connections, other.route_connections),
        ] {
            *mine += theirs;
        }
        *journal_amplification = journal_amplification.max(other.journal_amplification);
        *busy_ratio = busy_ratio.max(other.busy_ratio);
        *low_space |= other.low_space;
    }
}

/// One shard at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardSnapshot {
    /// Number of the shard.
    pub shard: u16,
    /// Latency by stage.
    pub stages: StagesSnapshot,
    /// What happened.
    pub counters: CountersSnapshot,
    /// What is there.
    pub gauges: Gauges,
    /// What other servers have refused, by class.
    #[serde(default)]
    pub refusals: Classes,
}

/// How long a certificate is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateDays {
    /// The `pki` that has it.
    pub pki: String,
    /// Whole days that are left; negative when it has expired.
    pub days: i64,
}

/// The server at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the server.
    pub version: String,
    /// Seconds since it began.
    pub uptime_seconds: f64,
    /// Its shards, in order.
    pub shards: Vec<ShardSnapshot>,
    /// Its certificates, by name.
    pub certificates: Vec<CertificateDays>,
    /// What became of mail to other servers by site, those with a name of their own first (`metrics sites`).
    #[serde(default)]
    pub sites: Vec<(String, Tally)>,
    /// Sites that have had mail, and of which that is counted as `other` above; not more of them are known than are watched
    /// ([`SITES_WATCHED`](crate::limits::SITES_WATCHED)).
    #[serde(default)]
    pub sites_left_out: usize,
}

impl Snapshot {
    /// All shards added up, under the number 0.
    pub fn merged(&self) -> ShardSnapshot {
        let mut all = ShardSnapshot::default();
        for shard in &self.shards {
            all.stages.merge(&shard.stages);
            all.counters.merge(&shard.counters);
            all.gauges.merge(&shard.gauges);
            all.refusals.merge(&shard.refusals);
        }
        all
    }
}
