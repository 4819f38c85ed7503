//! The control socket: who may speak (its own user and root, whom the kernel vouches for; others as its mode lets them), and
//! what is answered.

use std::sync::Arc;
use std::time::Duration;

use ringpost_conf::tables::ServiceKind;
use ringpost_perf::Snapshot;
use ringpost_shard::{HostRow, RelayRow, RouteRow, Selector};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{Coordinator, Shards, tables};
use crate::ipc::control::{Answer, Overviewed, Request};
use crate::limits::{CONTROL_CLIENTS, CONTROL_LINE_BYTES, CONTROL_WAIT, OVERVIEW_ROWS, SHARD_ANSWER};

/// Who may speak at the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The server's user and root.
    Owner,
    /// Whom group and mode of the socket let in: the configuration says so.
    Mode,
}

impl Admission {
    /// As the configuration wants it.
    pub fn of(control: &ringpost_conf::Control) -> Self {
        if control.group.is_some() || control.mode.is_some() { Self::Mode } else { Self::Owner }
    }
}

/// Serves administrators as long as the engine runs.
pub async fn serve(listener: UnixListener, admission: Admission, coordinator: Arc<Coordinator>) {
    let places = Arc::new(Semaphore::new(CONTROL_CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let coordinator = coordinator.clone();
                tokio::spawn(async move {
                    // An administrator's program that hangs up in the middle has all it wanted.
                    let _ = converse(stream, admission, &coordinator).await;
                    drop(place);
                });
            }
            Err(error) => {
                coordinator.log.warn(&format_args!("control socket: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers one request after the other, until the client has had enough or says nothing more.
async fn converse(stream: UnixStream, admission: Admission, coordinator: &Coordinator) -> std::io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (reader, writer) = stream.into_split();
    let mut out = Lines(BufWriter::new(writer));
    let own = rustix::process::geteuid().as_raw();
    if admission == Admission::Owner && peer != own && peer != 0 {
        return out.send(&Answer::Error(format!("user {peer} may not control a server of user {own}"))).await;
    }
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(0));
    loop {
        line.clear();
        let held = reader.buffer().len() as u64;
        reader.get_mut().set_limit(CONTROL_LINE_BYTES.saturating_sub(held));
        let read = tokio::time::timeout(CONTROL_WAIT, reader.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return Ok(());
        }
        match serde_json::from_str(line.trim_end()) {
            Ok(request) => answer(request, peer, coordinator, &mut out).await?,
            // What follows cannot be understood either.
            Err(error) => return out.send(&Answer::Error(format!("not a request: {error}"))).await,
        }
    }
}

async fn answer(request: Request, user: u32, coordinator: &Coordinator, out: &mut Lines) -> std::io::Result<()> {
    let shards = &coordinator.shards;
    let last = match request {
        Request::Stats => {
            let snapshot: Snapshot = (*shards.snapshot().await).clone();
            out.line(&Answer::Stats(Box::new(snapshot))).await?;
            Answer::Done(String::new())
        }
        Request::List => {
            for envelope in shards.list().await {
                out.line(&Answer::Envelope(envelope)).await?;
            }
            Answer::Done(String::new())
        }
        Request::Show { id } => match shards.show(id).await {
            Some(message) => {
                out.line(&Answer::Message(message)).await?;
                Answer::Done(String::new())
            }
            None => Answer::Error(format!("no message {id:016x} in the queue")),
        },
        Request::Why { selector } => {
            for why in shards.why(&Selector::parse(&selector)).await {
                out.line(&Answer::Why(Box::new(why))).await?;
            }
            Answer::Done(String::new())
        }
        Request::Overview { of, matching } => overview(shards, of, matching, out).await?,
        Request::Warmups { matching } => {
            let text = matching.unwrap_or_default().to_ascii_lowercase();
            let mut all = coordinator.warmups();
            all.retain(|row| row.is_about(&text));
            Answer::Done(left_out(some(all, Answer::Warmup, out).await?))
        }
        Request::LimitSet { selector, limits, time_ms } => {
            let time = time_ms.map(Duration::from_millis);
            done(coordinator.set_limit(&selector, &limits, time, user).await)
        }
        Request::LimitUnset { selector } => done(coordinator.unset_limit(&selector, user).await),
        Request::Limits { all } => {
            for row in coordinator.limits(all).await {
                out.line(&Answer::Limit(row)).await?;
            }
            Answer::Done(String::new())
        }
        Request::Retry => match shards.retry().await {
            1 => Answer::Done("1 envelope is tried now".into()),
            count => Answer::Done(format!("{count} envelopes are tried now")),
        },
        Request::TableLookup { table, service, key } => match ServiceKind::parse(&service) {
            Some(service) => {
                let (tables, config) = (coordinator.tables(), coordinator.config());
                let answer = tables::look(&tables, Some(&config), &table, service, &key).await;
                out.line(&Answer::Lookup(answer)).await?;
                Answer::Done(String::new())
            }
            None => Answer::Error(format!("there are no `{service}` lookups")),
        },
        Request::TableKeys { table, service, keys } => {
            let said = coordinator.tables().lookup_first(&table, service, keys).await;
            out.line(&Answer::Lookup(said.into())).await?;
            Answer::Done(String::new())
        }
        Request::ClientName { address } => {
            out.line(&Answer::Lookup(coordinator.client_name(address).await)).await?;
            Answer::Done(String::new())
        }
        Request::TableShow { table } => {
            match tables::show(&coordinator.tables(), Some(&coordinator.config()), table.as_deref()) {
                Ok(all) => {
                    for shown in all {
                        out.line(&Answer::Shown(shown)).await?;
                    }
                    Answer::Done(String::new())
                }
                Err(why) => Answer::Error(why),
            }
        }
        Request::TableFigures { table } => {
            let tables = coordinator.tables();
            let names = table.map_or_else(|| tables.names().map(str::to_owned).collect(), |name| vec![name]);
            let figures: Result<Vec<_>, _> = names.iter().map(|name| tables.figures(name)).collect();
            match figures {
                Ok(figures) => {
                    for figures in figures {
                        out.line(&Answer::Table(Box::new(figures))).await?;
                    }
                    Answer::Done(String::new())
                }
                Err(why) => Answer::Error(why),
            }
        }
        Request::TableUpdate { table } => {
            match tokio::time::timeout(SHARD_ANSWER, coordinator.update_table(&table)).await {
                Ok(Ok(text)) => Answer::Done(text),
                Ok(Err(text)) => Answer::Error(text),
                Err(_) => Answer::Error("the supervisor does not answer".into()),
            }
        }
        Request::Reload => match tokio::time::timeout(SHARD_ANSWER, coordinator.reload()).await {
            Ok(Ok(text)) => Answer::Done(text),
            Ok(Err(text)) => Answer::Error(text),
            Err(_) => Answer::Error("the supervisor does not answer".into()),
        },
        Request::TlsReport { end_day: true } => match coordinator.end_day().await {
            1 => Answer::Done("1 report is written".into()),
            count => Answer::Done(format!("{count} reports are written")),
        },
        Request::TlsReport { end_day: false } => {
            for domain in coordinator.reports().of_today() {
                out.line(&Answer::Encryption(domain)).await?;
            }
            Answer::Done(String::new())
        }
        Request::Door => {
            out.line(&Answer::Door(coordinator.door.clone())).await?;
            Answer::Done(String::new())
        }
        Request::Stop => {
            coordinator.ask_to_stop();
            Answer::Done("stopping".into())
        }
    };
    out.send(&last).await
}

fn done(outcome: Result<String, String>) -> Answer {
    outcome.map_or_else(Answer::Error, Answer::Done)
}

/// Sends the rows that are meant, as many as there may be; the last line is how many there would be more.
async fn overview(
    shards: &Shards,
    of: Overviewed,
    matching: Option<String>,
    out: &mut Lines,
) -> std::io::Result<Answer> {
    let text = matching.unwrap_or_default().to_ascii_lowercase();
    let mut all = shards.overview().await;
    let more = match of {
        Overviewed::Hosts => {
            all.hosts.retain(|row| row.is_about(&text));
            all.hosts.sort_by_cached_key(HostRow::rank);
            some(all.hosts, |row| Answer::Host(Box::new(row)), out).await?
        }
        Overviewed::Relays => {
            all.relays.retain(|row| row.is_about(&text));
            all.relays.sort_by_cached_key(RelayRow::rank);
            some(all.relays, |row| Answer::Relay(Box::new(row)), out).await?
        }
        Overviewed::Routes => {
            all.routes.retain(|row| row.is_about(&text));
            all.routes.sort_by_cached_key(RouteRow::rank);
            some(all.routes, |row| Answer::Route(Box::new(row)), out).await?
        }
    };
    Ok(Answer::Done(left_out(more)))
}

fn left_out(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!("{more} more are left out; name a part of what you look for"),
    }
}

/// Sends at most [`OVERVIEW_ROWS`]; how many were left out.
async fn some<T>(rows: Vec<T>, answer: impl Fn(T) -> Answer, out: &mut Lines) -> std::io::Result<usize> {
    let more = rows.len().saturating_sub(OVERVIEW_ROWS);
    for row in rows.into_iter().take(OVERVIEW_ROWS) {
        out.line(&answer(row)).await?;
    }
    Ok(more)
}

struct Lines(BufWriter<OwnedWriteHalf>);

impl Lines {
    async fn line(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        match tokio::time::timeout(CONTROL_WAIT, self.0.write_all(&line)).await {
            Ok(written) => written,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }

    async fn send(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        self.line(value).await?;
        self.0.flush().await
    }
}
