//! `sqlite:` tables: the administrator's own queries, on a few threads. Databases are opened for reading only, queries are
//! prepared once, keys are bound and never pasted.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Surroundings;
use super::cache::Question;
use super::limits::{ROWS, SQLITE_STEPS, VALUE_BYTES};
use super::service::{BETWEEN_ROWS, Rows, Service, either};
use super::settings::{ConfigFile, Keys, Problem, Settings};
use super::table::{Looked, Trouble};

const KEYS: Keys = Keys { plain: &["dbpath"], per_service: &[("query_", "")], may_be_empty: &[] };

/// A database and the queries that are put to it.
pub struct Database {
    plan: Arc<Plan>,
    settings: Settings,
    pool: usize,
    /// To the threads, once they were needed. They end when this is dropped.
    jobs: Mutex<Option<Sender<Job>>>,
}

struct Plan {
    table: String,
    /// Where it is.
    place: PathBuf,
    /// How it is called in the configuration.
    path: String,
    queries: BTreeMap<Service, Query>,
    /// How often it was opened.
    opened: AtomicU64,
}

struct Query {
    /// `query_alias`
    name: String,
    text: String,
}

struct Job {
    question: Question,
    deadline: Instant,
    answer: oneshot::Sender<Looked>,
    /// The thread is taken as long as this is.
    place: OwnedSemaphorePermit,
}

impl Job {
    fn end(self, looked: Looked) {
        drop(self.place);
        // Who no longer waits needs no answer.
        let _ = self.answer.send(looked);
    }
}

/// The database that a configuration file names, as it is written there.
pub fn database(file: &ConfigFile) -> Option<PathBuf> {
    let settings = Settings::parse(file, KEYS).ok()?;
    settings.need("dbpath").ok().map(PathBuf::from)
}

impl Database {
    /// Reads the configuration file. The database is opened when it is first needed.
    pub fn new(table: &str, file: &ConfigFile, pool: usize, surroundings: &Surroundings) -> Result<Self, Vec<Problem>> {
        let settings = Settings::parse(file, KEYS)?;
        let path = settings.need("dbpath").map_err(|problem| vec![problem])?.to_owned();
        let queries = settings.per_service("query_", "").into_iter();
        let queries: BTreeMap<_, _> =
            queries.map(|(service, (name, line))| (service, Query { name, text: line.value })).collect();
        let place = surroundings.place(Path::new(&path));
        let plan = Arc::new(Plan { table: table.to_owned(), place, path, queries, opened: AtomicU64::new(0) });
        Ok(Self { plan, settings, pool: pool.max(1), jobs: Mutex::new(None) })
    }

    /// The services that there are queries for.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.plan.queries.keys().copied()
    }

    /// How often it was opened.
    pub fn connections(&self) -> u64 {
        self.plan.opened.load(Ordering::Relaxed)
    }

    /// Opens the database and prepares every query.
    pub fn check(&self) -> Vec<Problem> {
        let connection = match open(&self.plan) {
            Ok((connection, _)) => connection,
            Err(trouble) => return vec![self.settings.about("dbpath", text(trouble), None)],
        };
        let mut problems = Vec::new();
        for (service, query) in &self.plan.queries {
            if let Err(trouble) = prepare(&connection, *service, query) {
                problems.push(self.settings.about(&query.name, text(trouble), None));
            }
        }
        problems
    }

    /// Asks a thread of the pool.
    pub async fn ask(&self, question: &Question, deadline: Instant, place: OwnedSemaphorePermit) -> Looked {
        let (answer, wait) = oneshot::channel();
        let job = Job { question: question.clone(), deadline, answer, place };
        let lost = |_| Trouble::Backend("the thread that asks SQLite has ended".into());
        self.threads()?.send(job).map_err(|_| lost(()))?;
        wait.await.map_err(|_| lost(()))?
    }

    fn threads(&self) -> Result<Sender<Job>, Trouble> {
        let mut jobs = self.jobs.lock().expect("nobody panics with it");
        if let Some(jobs) = &*jobs {
            return Ok(jobs.clone());
        }
        // Never full: there are no more places than threads.
        let (sender, receiver) = crossbeam::channel::bounded(self.pool);
        for _ in 0..self.pool {
            let (plan, jobs) = (self.plan.clone(), receiver.clone());
            let name: String = format!("sql {}", self.plan.table).chars().take(15).collect();
            let started = std::thread::Builder::new().name(name).spawn(move || work(&plan, &jobs));
            started.map_err(|error| Trouble::Backend(format!("cannot start a thread: {error}")))?;
        }
        Ok(jobs.insert(sender).clone())
    }
}

/// A thread of the pool: one connection at a time, opened when there is something to ask.
fn work(plan: &Plan, jobs: &Receiver<Job>) {
    let mut next = jobs.recv().ok();
    while let Some(job) = next.take() {
        next = match open(plan) {
            Ok((connection, alarm)) => serve(plan, &connection, &alarm, job, jobs),
            Err(trouble) => {
                job.end(Err(trouble));
                jobs.recv().ok()
            }
        };
    }
}

/// Answers from one connection, as long as it is good. What is given back needs a new one.
fn serve(plan: &Plan, connection: &Connection, alarm: &Alarm, first: Job, jobs: &Receiver<Job>) -> Option<Job> {
    let opened = identity(&plan.place);
    let mut statements: BTreeMap<Service, Statement<'_>> = BTreeMap::new();
    let mut job = first;
    loop {
        // A database that was replaced by another file of the same name is not the one that is open.
        if opened != identity(&plan.place) {
            return Some(job);
        }
        alarm.set(job.deadline);
        let looked = answer(plan, connection, &mut statements, &job);
        let is_broken = matches!(looked, Err(Trouble::Backend(_)));
        job.end(looked);
        let next = jobs.recv().ok()?;
        if is_broken {
            return Some(next);
        }
        job = next;
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn answer<'c>(
    plan: &Plan,
    connection: &'c Connection,
    statements: &mut BTreeMap<Service, Statement<'c>>,
    job: &Job,
) -> Looked {
    let left = job.deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Trouble::Busy("its time was over before it was asked".into()));
    }
    let failed = |error| trouble(plan, error);
    connection.busy_timeout(left).map_err(failed)?;
    let service = job.question.service.asked_as();
    let query = plan.queries.get(&service).ok_or_else(|| Trouble::Backend("there is no query for that".into()))?;
    let statement = match statements.entry(service) {
        std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
        std::collections::btree_map::Entry::Vacant(empty) => empty.insert(prepare(connection, service, query)?),
    };
    rows(plan, statement, &job.question)
}

/// Prepares a query and looks whether it can answer the service at all.
fn prepare<'c>(connection: &'c Connection, service: Service, query: &Query) -> Result<Statement<'c>, Trouble> {
    let Query { name, text } = query;
    let statement =
        connection.prepare(text).map_err(|error| Trouble::Backend(format!("{name}: {}", message(&error))))?;
    let wrong = |what: String| Err(Trouble::Backend(format!("{name}: {what}")));
    if !statement.readonly() {
        return wrong("it changes the database; a query begins with `select`".into());
    }
    let (parameters, columns) = (statement.parameter_count(), statement.column_count());
    if !service.parameters().contains(&parameters) {
        return wrong(format!("it has {parameters} parameters `?`, {} needed", either(service.parameters())));
    }
    if !service.columns().contains(&columns) {
        return wrong(format!("it gives {columns} columns, {} needed", either(service.columns())));
    }
    Ok(statement)
}

fn rows(plan: &Plan, statement: &mut Statement<'_>, question: &Question) -> Looked {
    let Question { service, key } = question;
    let failed = |error| trouble(plan, error);
    statement.clear_bindings();
    match (statement.parameter_count(), service) {
        (0, _) => {}
        (_, Service::Auth) => {
            let (user, password) = key.split_once(':').unwrap_or((key, ""));
            statement.raw_bind_parameter(1, user).map_err(failed)?;
            statement.raw_bind_parameter(2, password).map_err(failed)?;
        }
        _ => statement.raw_bind_parameter(1, key).map_err(failed)?,
    }
    let mut rows = statement.raw_query();
    let (mut text, mut count) = (String::new(), 0);
    while let Some(row) = rows.next().map_err(failed)? {
        count += 1;
        match service.rows() {
            Rows::One if count > 1 => return Err(Trouble::Entry("more than one row, one is wanted".into())),
            Rows::Many if count > ROWS => return Err(Trouble::Entry(format!("more than {ROWS} rows"))),
            Rows::Many if count > 1 => text.push_str(BETWEEN_ROWS),
            _ => {}
        }
        record(row, count, *service, &mut text)?;
        if service.rows() == Rows::Any {
            break;
        }
        if text.len() > VALUE_BYTES {
            return Err(Trouble::Entry(format!("more than {VALUE_BYTES} bytes")));
        }
    }
    Ok((count > 0).then_some(text))
}

fn record(row: &rusqlite::Row<'_>, number: usize, service: Service, text: &mut String) -> Result<(), Trouble> {
    let columns = row.as_ref().column_count();
    // The query may say `*`, and the table may have got a column since.
    if !service.columns().contains(&columns) {
        let wanted = either(service.columns());
        return Err(Trouble::Entry(format!("row {number} has {columns} columns, {wanted} wanted")));
    }
    for column in 0..columns {
        if column > 0 {
            text.push_str(service.joint());
        }
        let bad = |what: &str| Trouble::Entry(format!("row {number}, column {}: {what}", column + 1));
        match row.get_ref(column).map_err(|error| bad(&error.to_string()))? {
            ValueRef::Text(bytes) => text.push_str(std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?),
            ValueRef::Integer(number) => text.push_str(&number.to_string()),
            ValueRef::Null if service.rows() != Rows::Any => return Err(bad("NULL")),
            ValueRef::Null => {}
            ValueRef::Real(_) => return Err(bad("a number with a fraction")),
            ValueRef::Blob(_) => return Err(bad("a blob")),
        }
    }
    Ok(())
}

/// When the query that runs now has to end. SQLite looks at it every few microseconds of work.
struct Alarm {
    started: Instant,
    after_us: AtomicU64,
}

impl Alarm {
    fn set(&self, deadline: Instant) {
        let after = deadline.saturating_duration_since(self.started);
        self.after_us.store(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.started.elapsed().as_micros() >= u128::from(self.after_us.load(Ordering::Relaxed))
    }
}

fn open(plan: &Plan) -> Result<(Connection, Arc<Alarm>), Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |error| trouble(plan, error);
    plan.opened.fetch_add(1, Ordering::Relaxed);
    let mut connection = Connection::open_with_flags(&plan.place, flags).map_err(failed)?;
    let alarm = Arc::new(Alarm { started: Instant::now(), after_us: AtomicU64::new(u64::MAX) });
    let hears = alarm.clone();
    connection.progress_handler(SQLITE_STEPS, Some(move || hears.is_over())).map_err(failed)?;
    // Opening reads nothing; this tells whether it is a database.
    connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(())).map_err(failed)?;
    Ok((connection, alarm))
}

fn trouble(plan: &Plan, error: rusqlite::Error) -> Trouble {
    let why = match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => "the query took too long and was broken off".to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "the database is locked".to_owned(),
        _ => message(&error),
    };
    Trouble::Backend(format!("{}: {why}", plan.path))
}

/// SQLite's own words.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

fn text(trouble: Trouble) -> String {
    match trouble {
        Trouble::Backend(text) | Trouble::Entry(text) | Trouble::Busy(text) => text,
    }
}

#[cfg(test)]
mod tests;
