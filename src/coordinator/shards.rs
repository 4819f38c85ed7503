//! All shards as the coordinator sees them: orders to each, answers added up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures_channel::oneshot;
use ringpost_conf::Config;
use ringpost_io::Sender;
use ringpost_perf::sites::Sites;
use ringpost_perf::{Counter, Counters, Gauges, ShardSnapshot, Snapshot, Stage};
use ringpost_queue::MessageId;
use ringpost_shard::{
    Concerned, ListedEnvelope, Onward, Order, Overrides, Overview, RelayRow, Selector, Servers, ShardReport,
    ShownMessage, Why,
};
use ringpost_tls::Connector;

use super::expiry::Expiry;
use crate::ipc::engine::Summary;
use crate::limits::{SHARD_ANSWER, SHARD_LIST, STATS_KEEP};

/// Whether a configuration's shapes, warm-ups and pools are those of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shapes {
    /// They are.
    Same,
    /// Some are not.
    Changed,
}

/// Orders and counters of every shard.
pub struct Shards {
    orders: Vec<Sender<Order>>,
    counters: Vec<Arc<Counters>>,
    began: Instant,
    kept: tokio::sync::Mutex<Option<(Instant, Arc<Snapshot>)>>,
    accepting: AtomicBool,
    /// What became of mail by site.
    sites: Mutex<Sites>,
    /// How long certificates are good for.
    pub certificates: Expiry,
}

impl Shards {
    /// In order of their numbers.
    pub fn new(orders: Vec<Sender<Order>>, counters: Vec<Arc<Counters>>) -> Self {
        let (accepting, certificates) = (AtomicBool::new(false), Expiry::default());
        let sites = Mutex::default();
        Self { orders, counters, began: Instant::now(), kept: Default::default(), accepting, sites, certificates }
    }

    /// So many mail sites may have a name in metrics from now on (`metrics sites`); `None`: sites are not told apart.
    pub fn name_sites(&self, most: Option<u32>) {
        let mut sites = self.sites.lock().expect("nobody panics with it");
        match most {
            Some(most) => sites.limit(most as usize),
            None => *sites = Sites::default(),
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.orders.len()
    }

    /// All listeners accept now, or no longer.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Ordering::Release);
    }

    /// Why new mail is not taken; `None`: it is.
    pub async fn not_ready(&self) -> Option<&'static str> {
        if !self.accepting.load(Ordering::Acquire) {
            return Some("starting or stopping");
        }
        let snapshot = self.snapshot().await;
        if snapshot.shards.len() < self.count() {
            return Some("a shard does not answer");
        }
        snapshot.merged().gauges.low_space.then_some("the disk is nearly full")
    }

    /// Figures, at most [`STATS_KEEP`] old. A shard that does not answer is left out.
    pub async fn snapshot(&self) -> Arc<Snapshot> {
        self.not_older(STATS_KEEP).await
    }

    /// Figures of now.
    pub async fn snapshot_now(&self) -> Arc<Snapshot> {
        self.not_older(Duration::ZERO).await
    }

    async fn not_older(&self, age: Duration) -> Arc<Snapshot> {
        let mut kept = self.kept.lock().await;
        if let Some((when, snapshot)) = kept.as_ref()
            && when.elapsed() < age
        {
            return snapshot.clone();
        }
        let mut reports = self.ask(Order::Stats, SHARD_ANSWER).await;
        let (sites, sites_left_out) = {
            let mut sites = self.sites.lock().expect("nobody panics with it");
            reports.iter_mut().for_each(|(_, report)| sites.merge(&std::mem::take(&mut report.sites)));
            (sites.snapshot(), sites.left_out())
        };
        let shards = reports.into_iter().map(|(shard, report)| self.shard_snapshot(shard, report));
        let snapshot = Arc::new(Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            shards: shards.collect(),
            certificates: self.certificates.days(SystemTime::now()),
            sites,
            sites_left_out,
        });
        *kept = Some((Instant::now(), snapshot.clone()));
        snapshot
    }

    /// Every envelope, oldest message first.
    pub async fn list(&self) -> Vec<ListedEnvelope> {
        let lists = self.ask(Order::List, SHARD_LIST).await;
        let mut all: Vec<_> = lists.into_iter().flat_map(|(_, list)| list).collect();
        all.sort_by(|a, b| (a.received_ms, &a.id).cmp(&(b.received_ms, &b.id)));
        all
    }

    /// A message, wherever it is.
    pub async fn show(&self, id: u64) -> Option<ShownMessage> {
        let found = self.ask(|answer| Order::Show(id, answer), SHARD_ANSWER).await;
        found.into_iter().find_map(|(_, message)| message)
    }

    /// What envelopes wait for, oldest message first: their homes are asked, then the owners of the routes that those name.
    pub async fn why(&self, selector: &Selector) -> Vec<Why> {
        let found = self.ask(|answer| Order::Why(selector.clone(), answer), SHARD_LIST).await;
        let mut all: Vec<(Why, Onward)> = found.into_iter().flat_map(|(_, asked)| asked).collect();
        for (owner, orders) in self.orders.iter().enumerate() {
            let at = |onward: &Onward| onward.as_ref().filter(|(of, _)| *of == owner).map(|(_, site)| site.clone());
            let (mut numbers, mut messages) = (Vec::new(), Vec::new());
            for (number, (why, onward)) in all.iter().enumerate() {
                if let (Some(site), Ok(id)) = (at(onward), why.envelope.id.parse::<MessageId>()) {
                    numbers.push(number);
                    messages.push((id.0, site));
                }
            }
            let (answer, wait) = oneshot::channel();
            if messages.is_empty() || orders.try_send(Order::AtRoutes(messages, answer)).is_err() {
                continue;
            }
            if let Ok(Ok(told)) = tokio::time::timeout(SHARD_ANSWER, wait).await {
                for (number, blocked) in numbers.into_iter().zip(told) {
                    blocked.into_iter().for_each(|blocked| all[number].0.with_route(blocked));
                }
            }
        }
        let mut all: Vec<Why> = all.into_iter().map(|(why, _)| why).collect();
        all.sort_by(|Why { envelope: a, .. }, Why { envelope: b, .. }| {
            (a.received_ms, &a.id, &a.recipient).cmp(&(b.received_ms, &b.id, &b.recipient))
        });
        all
    }

    /// Hosts, sites and routes of all shards; those of one that does not answer are missing.
    pub async fn overview(&self) -> Overview {
        let mut all = Overview::default();
        for (_, part) in self.ask(Order::Overview, SHARD_LIST).await {
            all.hosts.extend(part.hosts);
            all.relays.extend(part.relays);
            all.routes.extend(part.routes);
        }
        Overview { relays: RelayRow::merge(all.relays), ..all }
    }

    /// Makes all that is deferred due; how many envelopes that was.
    pub async fn retry(&self) -> u64 {
        // First all routes, or mail of one shard would find that of another still resting.
        self.ask(Order::Resume, SHARD_ANSWER).await;
        self.ask(Order::Retry, SHARD_ANSWER).await.into_iter().map(|(_, count)| count).sum()
    }

    /// What a table has said does not count any more.
    pub async fn forget_table(&self, name: &str) {
        for shard in &self.orders {
            // A shard that is gone remembers nothing.
            let _ = shard.send(Order::ForgetTable(name.to_owned())).await;
        }
    }

    /// Connections to other servers trust whom this trusts from now on.
    pub async fn trust(&self, connector: &Connector) {
        for shard in &self.orders {
            // A shard that is gone connects to nobody.
            let _ = shard.send(Order::Trust(connector.clone())).await;
        }
    }

    /// Gives each a new configuration, and what handshakes are made with from then on. If `shapes` may be others, waiting mail
    /// is sent on its way anew as soon as all follow it.
    pub async fn reload(&self, config: &Arc<Config>, servers: &Servers, shapes: Shapes) {
        let mut waiting = Vec::new();
        for shard in &self.orders {
            let (answer, wait) = oneshot::channel();
            // A shard that is gone needs none.
            if shard.send(Order::Reload(config.clone(), servers.clone(), answer)).await.is_ok() {
                waiting.push(wait);
            }
        }
        if shapes == Shapes::Changed {
            self.recall(waiting, &Concerned::All).await;
        }
    }

    /// Has each follow these limits from now on. When all do, waiting mail that one of the `changed` is for is sent on its way
    /// anew.
    pub async fn limit(&self, limits: &Overrides, changed: &Overrides) {
        let mut waiting = Vec::new();
        for shard in &self.orders {
            let (answer, wait) = oneshot::channel();
            // A shard that is gone has no routes.
            if shard.send(Order::Limit(limits.clone(), answer)).await.is_ok() {
                waiting.push(wait);
            }
        }
        self.recall(waiting, &Concerned::Of(changed.clone())).await;
    }

    /// Has waiting mail that is concerned sent on its way anew when all shards have said that they follow what is new.
    async fn recall(&self, waiting: Vec<oneshot::Receiver<()>>, concerned: &Concerned) {
        let deadline = tokio::time::Instant::now() + SHARD_ANSWER;
        for wait in waiting {
            // One that is late sends its mail as before until then.
            let _ = tokio::time::timeout_at(deadline, wait).await;
        }
        for shard in &self.orders {
            // A shard that is gone has no routes.
            let _ = shard.send(Order::Recall(concerned.clone())).await;
        }
    }

    /// Tells each to stop.
    pub async fn stop(&self) {
        self.set_accepting(false);
        for shard in &self.orders {
            // A shard that is gone has stopped.
            let _ = shard.send(Order::Stop).await;
        }
    }

    /// A run in short. The figures of stages are those that `last` holds; counters are read now.
    pub fn summary(&self, last: &Snapshot) -> Summary {
        let all = last.merged();
        let commit = all.stages.stage(Stage::CommitWait);
        let count = |counter| self.counters.iter().map(|counters| counters.get(counter)).sum();
        Summary {
            received: count(Counter::MessagesReceived),
            delivered: count(Counter::Delivered),
            waiting: all.gauges.queue_messages,
            commit_p50_us: commit.quantile_us(0.5),
            commit_p99_us: commit.quantile_us(0.99),
        }
    }

    /// Asks all at once and takes what answers come in time.
    async fn ask<T>(&self, order: impl Fn(oneshot::Sender<T>) -> Order, time: Duration) -> Vec<(usize, T)> {
        let mut waiting = Vec::new();
        for (number, shard) in self.orders.iter().enumerate() {
            let (answer, wait) = oneshot::channel();
            if shard.try_send(order(answer)).is_ok() {
                waiting.push((number, wait));
            }
        }
        let deadline = tokio::time::Instant::now() + time;
        let mut answers = Vec::new();
        for (number, wait) in waiting {
            if let Ok(Ok(answer)) = tokio::time::timeout_at(deadline, wait).await {
                answers.push((number, answer));
            }
        }
        answers
    }

    fn shard_snapshot(&self, number: usize, report: ShardReport) -> ShardSnapshot {
        let counts = &report.queue;
        let gauges = Gauges {
            sessions_open: report.sessions as u64,
            queue_messages: counts.messages,
            queue_envelopes: counts.envelopes,
            queue_deferred: counts.deferred,
            queue_in_flight: counts.in_flight,
            queue_bytes: counts.bytes_live,
            segments_free: counts.segments.free,
            segments_active: counts.segments.active,
            segments_cold: counts.segments.cold,
            journal_amplification: counts.amplification,
            route_connections: report.routes.connections as u64,
            low_space: report.low_space,
            ..Gauges::default()
        };
        ShardSnapshot {
            shard: number as u16,
            stages: report.stages,
            counters: self.counters[number].snapshot(),
            gauges,
            refusals: report.refusals,
        }
    }
}
