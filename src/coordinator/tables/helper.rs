//! Helpers: programs that answer for a table over their standard input and output, in the lines of smtpd-tables(7),
//! protocol 0.1. Many questions may be under way; each has a number. One that dies is started again when it is needed.

mod options;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use ringpost_conf::{HelperOption, Registered};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use self::options::Given;
use super::cache::Question;
use super::events::Event;
use super::limits::{
    HELPER_COMPLAINT_BYTES, HELPER_LINE_BYTES, HELPER_OPTIONS, HELPER_SERVICES, HELPER_START, MULTIPLEXED,
};
use super::link::Link;
use super::program::{self, Running};
use super::service::Service;
use super::settings::Problem;
use super::table::{Looked, Trouble};

/// A helper's configuration file: it gets the path as its argument, and is told what we can read in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    path: PathBuf,
    given: Given,
}

/// A helper, whether it runs or not.
pub struct Helper {
    table: String,
    program: PathBuf,
    argument: Option<Argument>,
    events: Arc<dyn Fn(&Event) + Send + Sync>,
    link: Link<Arc<Talk>>,
}

/// One life of it.
struct Talk {
    services: BTreeSet<String>,
    options: Vec<HelperOption>,
    lines: mpsc::Sender<String>,
    next: AtomicU64,
    waiting: Arc<Waiting>,
    /// Dropped with this, which ends the helper, too, if it does not hear that its input is closed.
    _needed: oneshot::Sender<()>,
}

/// Who waits for what: by the number of the question. Empty for good once the helper has ended.
#[derive(Default)]
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>);

/// What a helper says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    Found(String),
    NotFound,
    Done,
    Error(String),
}

impl Argument {
    /// Reads the file as far as that can be done.
    pub fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), given: Given::read(path) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Helper {
    /// Not started yet.
    pub fn new(
        table: &str,
        program: PathBuf,
        argument: Option<Argument>,
        events: Arc<dyn Fn(&Event) + Send + Sync>,
    ) -> Self {
        Self { table: table.to_owned(), program, argument, events, link: Link::new() }
    }

    /// How often it was started.
    pub fn connections(&self) -> u64 {
        self.link.made()
    }

    /// Whether it registers a service.
    pub async fn provides(&self, service: Service) -> Result<bool, String> {
        let talk = self.link.get(|| self.start()).await.map_err(text)?.connection;
        Ok(talk.provides(service))
    }

    /// All that it registers, as far as there are such services.
    pub async fn registered(&self) -> Result<Registered, String> {
        let talk = self.link.get(|| self.start()).await.map_err(text)?.connection;
        let mut services: Vec<String> = Vec::new();
        for service in Service::names().filter_map(Service::named).filter(|service| talk.provides(*service)) {
            if !services.iter().any(|name| name == service.name()) {
                services.push(service.name().to_owned());
            }
        }
        Ok(Registered { services, options: talk.options.clone() })
    }

    /// Starts it.
    pub async fn check(&self) -> Vec<Problem> {
        match self.link.get(|| self.start()).await {
            Ok(_) => Vec::new(),
            Err(trouble) => {
                let (path, message) = (self.program.clone(), text(trouble));
                vec![Problem { path, line: 0, column: 0, message, help: None }]
            }
        }
    }

    /// Has it read its own data again.
    pub async fn update(&self) -> Result<(), String> {
        match self.say("update", None, "").await.map_err(text)? {
            Reply::Error(why) => Err(why),
            _ => Ok(()),
        }
    }

    /// Asks it.
    pub async fn ask(&self, question: &Question) -> Looked {
        let Question { service, key } = question;
        if key.contains(['\n', '\r', '\0']) {
            // No line can say that, so no table of lines can have it.
            return Ok(None);
        }
        let operation = match service {
            Service::Auth => "check",
            _ if service.parameters().contains(&0) && key.is_empty() => "fetch",
            _ => "lookup",
        };
        match self.say(operation, Some(*service), key).await? {
            Reply::Found(value) => Ok(Some(value)),
            Reply::NotFound => Ok(None),
            Reply::Done => Err(Trouble::Entry("the helper says `ok`, which is no answer".into())),
            Reply::Error(why) => Err(Trouble::Backend(why)),
        }
    }

    /// It may have lost its wits: the next question goes to a new one.
    pub fn reset(&self) {
        self.link.lose_all();
    }

    async fn say(&self, operation: &str, service: Option<Service>, key: &str) -> Result<Reply, Trouble> {
        let mut used = self.link.get(|| self.start()).await?;
        if used.connection.waiting.is_closed() {
            // It has died since it was last asked.
            self.link.lose(used.number);
            used = self.link.get(|| self.start()).await?;
        }
        let talk = used.connection;
        if let Some(service) = service.filter(|service| !talk.provides(*service)) {
            return Err(Trouble::Entry(format!("the helper does not register `{}`", service.name())));
        }
        let reply = talk.ask(&self.table, operation, service, key).await;
        reply.ok_or_else(|| {
            self.link.lose(used.number);
            Trouble::Backend("the helper has ended".into())
        })
    }

    async fn start(&self) -> Result<Arc<Talk>, Trouble> {
        let started = tokio::time::timeout(HELPER_START, self.shake_hands()).await;
        let shaken = started.unwrap_or_else(|_| {
            let seconds = HELPER_START.as_secs();
            let what =
                format!("it has not registered its services within {seconds} s: does it speak smtpd-tables(7) 0.1?");
            Err(io::Error::other(what))
        });
        shaken.map_err(|error| Trouble::Backend(format!("{}: {error}", self.program.display())))
    }

    async fn shake_hands(&self) -> io::Result<Arc<Talk>> {
        let program = program::start(&self.program, &self.table, self.argument.as_ref().map(Argument::path))?;
        program.talk.set_nonblocking(true)?;
        program.complaints.set_nonblocking(true)?;
        let complaints = UnixStream::from_std(program.complaints)?;
        tokio::spawn(hear(complaints, self.table.clone(), self.events.clone()));
        let (from, mut to) = UnixStream::from_std(program.talk)?.into_split();
        let mut from = BufReader::new(from);
        let mut running = program.running;
        let given = self.argument.as_ref().map(|argument| argument.given.lines()).unwrap_or_default();
        let hello = format!(
            "config|smtpd-version|7.7.0\nconfig|protocol|0.1\nconfig|tablename|{}\n{given}config|ready\n",
            self.table
        );
        // A program that has ended by now says so by the end of its output.
        let _ = to.write_all(hello.as_bytes()).await;
        let (mut services, mut options) = (BTreeSet::new(), Vec::new());
        loop {
            let line = match line(&mut from).await {
                Ok(Some(line)) => line,
                Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(error),
                Ok(None) | Err(_) => {
                    let how = running.ended().unwrap_or_else(|| "its output is closed".into());
                    return Err(io::Error::other(format!("it has ended before it was ready ({how})")));
                }
            };
            let said = line.strip_prefix("register|");
            if said == Some("ready") {
                break;
            }
            let option = said.and_then(|said| said.strip_prefix("option|"));
            match (option.map(options::registered), said) {
                (Some(Some(option)), _) if options.len() < HELPER_OPTIONS => options.push(option),
                (None, Some(service)) if services.len() < HELPER_SERVICES => drop(services.insert(service.to_owned())),
                _ => return Err(io::Error::other(format!("{line:?} instead of `register|…`"))),
            }
        }
        let (lines, to_write) = mpsc::channel(MULTIPLEXED);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        tokio::spawn(write(to, to_write));
        let (needed, until) = oneshot::channel();
        tokio::spawn(read(from, waiting.clone(), running, until));
        Ok(Arc::new(Talk { services, options, lines, next: AtomicU64::new(1), waiting, _needed: needed }))
    }
}

impl Talk {
    fn provides(&self, service: Service) -> bool {
        self.services.contains(service.name())
    }

    /// `None`: it has ended.
    async fn ask(&self, table: &str, operation: &str, service: Option<Service>, key: &str) -> Option<Reply> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = format!("table|0.1|{}.{:06}|{table}|{operation}", now.as_secs(), now.subsec_micros());
        if let Some(service) = service {
            line.push('|');
            line.push_str(service.name());
        }
        line.push_str(&format!("|{number:016x}"));
        if !matches!(operation, "update" | "fetch") {
            line.push('|');
            line.push_str(key);
        }
        line.push('\n');
        let wait = self.waiting.begin(number)?;
        // Forgets the question if nobody waits any more.
        let _asked = Asked { waiting: &self.waiting, number };
        self.lines.send(line).await.ok()?;
        wait.await.ok()
    }
}

struct Asked<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.waiting.end(self.number);
    }
}

impl Waiting {
    fn begin(&self, number: u64) -> Option<oneshot::Receiver<Reply>> {
        let (answer, wait) = oneshot::channel();
        self.0.lock().expect("nobody panics with it").as_mut()?.insert(number, answer);
        Some(wait)
    }

    fn end(&self, number: u64) -> Option<oneshot::Sender<Reply>> {
        self.0.lock().expect("nobody panics with it").as_mut()?.remove(&number)
    }

    fn is_closed(&self) -> bool {
        self.0.lock().expect("nobody panics with it").is_none()
    }

    fn close(&self) {
        self.0.lock().expect("nobody panics with it").take();
    }
}

fn text(trouble: Trouble) -> String {
    match trouble {
        Trouble::Backend(text) | Trouble::Entry(text) | Trouble::Busy(text) => text,
    }
}

/// Lines to the helper, until nobody has any more or it takes no more.
async fn write(mut to: OwnedWriteHalf, mut lines: mpsc::Receiver<String>) {
    while let Some(line) = lines.recv().await {
        if to.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Replies of the helper, until it ends, says something else, or nobody needs it any more.
async fn read(
    mut from: BufReader<OwnedReadHalf>,
    waiting: Arc<Waiting>,
    running: Running,
    mut needed: oneshot::Receiver<()>,
) {
    loop {
        let line = tokio::select! {
            line = line(&mut from) => line,
            _ = &mut needed => break,
        };
        let Ok(Some((number, reply))) = line.map(|line| line.as_deref().and_then(parse)) else { break };
        if let Some(answer) = waiting.end(number) {
            // Who no longer waits needs no answer.
            let _ = answer.send(reply);
        }
    }
    waiting.close();
    drop(from);
    drop(running);
}

/// One line without its end; `None` at the end of all. An error: it is too long, or not UTF-8.
async fn line(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = from.take(HELPER_LINE_BYTES as u64 + 1).read_until(b'\n', &mut bytes).await?;
    if read > HELPER_LINE_BYTES {
        return Err(io::Error::other(format!("a line of more than {HELPER_LINE_BYTES} bytes")));
    }
    if bytes.pop() != Some(b'\n') {
        return Ok(None);
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::other("a line that is not UTF-8"))
}

/// `lookup-result|NUMBER|found|VALUE` and the like.
fn parse(line: &str) -> Option<(u64, Reply)> {
    let (what, rest) = line.split_once('|')?;
    if !matches!(what, "lookup-result" | "check-result" | "fetch-result" | "update-result") {
        return None;
    }
    let (number, rest) = rest.split_once('|')?;
    let number = u64::from_str_radix(number, 16).ok()?;
    let (word, value) = rest.split_once('|').unwrap_or((rest, ""));
    let reply = match word {
        "found" => Reply::Found(value.to_owned()),
        "not-found" => Reply::NotFound,
        "ok" => Reply::Done,
        "error" if value.is_empty() => Reply::Error("the helper reports an error without a reason".to_owned()),
        "error" => Reply::Error(value.to_owned()),
        _ => return None,
    };
    Some((number, reply))
}

/// Its standard error becomes lines of the log.
async fn hear(complaints: UnixStream, table: String, events: Arc<dyn Fn(&Event) + Send + Sync>) {
    let mut from = BufReader::new(complaints);
    loop {
        let mut bytes = Vec::new();
        match (&mut from).take(HELPER_COMPLAINT_BYTES as u64).read_until(b'\n', &mut bytes).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if !line.is_empty() {
            events(&Event::Helper { table: table.clone(), line });
        }
    }
}

#[cfg(test)]
mod tests;
