//! `ldap:` tables (RFC 4511): one connection carries all lookups at the same time, so that one which hangs delays no other;
//! it is made again when it is lost. Keys are escaped (RFC 4515 §3) before they get into a filter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchOptions, ldap_escape, parse_filter};

use super::Surroundings;
use super::cache::Question;
use super::limits::ROWS;
use super::link::{self, Link, Said};
use super::service::{BETWEEN_ROWS, Rows, Service, either};
use super::settings::{ConfigFile, Keys, Problem, Settings};
use super::table::{Looked, Trouble};

mod entry;
mod guard;

use self::entry::{Entry, elsewhere};
use self::guard::First;

const KEYS: Keys = Keys {
    plain: &["url", "username", "password", "basedn"],
    per_service: &[("", "_filter"), ("", "_attributes")],
    may_be_empty: &[],
};

/// Result codes (RFC 4511 §4.1.9) that are told apart.
mod code {
    pub const SUCCESS: u32 = 0;
    pub const TIME_LIMIT: u32 = 3;
    pub const SIZE_LIMIT: u32 = 4;
    pub const REFERRAL: u32 = 10;
    pub const NO_SUCH_OBJECT: u32 = 32;
    pub const INVALID_CREDENTIALS: u32 = 49;
    pub const BUSY: u32 = 51;
    pub const UNAVAILABLE: u32 = 52;
}

/// A directory and what it is asked.
pub struct Directory {
    plan: Plan,
    link: Link<Ldap>,
}

struct Plan {
    servers: Vec<guard::Server>,
    bind: Option<(String, String)>,
    base: String,
    searches: BTreeMap<Service, Search>,
    timeout: Duration,
}

struct Search {
    /// With `%s` where the key goes.
    filter: String,
    attributes: Vec<String>,
}

impl Directory {
    /// Reads the configuration file. Servers are connected to when they are first needed.
    pub fn new(file: &ConfigFile, timeout: Duration, surroundings: &Surroundings) -> Result<Self, Vec<Problem>> {
        let settings = Settings::parse(file, KEYS)?;
        let mut problems = Vec::new();
        let servers = settings.need("url").map_err(|problem| vec![problem])?.split_whitespace();
        let servers = servers.filter_map(|url| match guard::Server::parse(url, surroundings) {
            Ok(server) => Some(server),
            Err(what) => {
                let help = "ldap://HOST, ldap://HOST:PORT or ldapi:///PATH/TO/SOCKET";
                problems.push(settings.about("url", what, Some(help.to_owned())));
                None
            }
        });
        let servers = servers.collect();
        let base = settings.need("basedn").map(str::to_owned);
        let base = base.map_err(|problem| problems.push(problem)).unwrap_or_default();
        let bind = match (settings.get("username"), settings.get("password")) {
            (Some(name), Some(password)) => Some((name.to_owned(), password.to_owned())),
            (None, None) => None,
            (Some(_), None) => {
                problems.push(settings.about("username", "there is no `password` for it", None));
                None
            }
            (None, Some(_)) => {
                problems.push(settings.about("password", "there is no `username` for it", None));
                None
            }
        };
        let searches = searches(&settings, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { plan: Plan { servers, bind, base, searches, timeout }, link: Link::new() })
    }

    /// The services that there are filters for.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.plan.searches.keys().copied()
    }

    /// How many connections have been made.
    pub fn connections(&self) -> u64 {
        self.link.made()
    }

    /// Searches, or judges a password by logging in with it.
    pub async fn ask(&self, question: &Question, deadline: Instant) -> Looked {
        let service = question.service.asked_as();
        let no_filter = || Trouble::Backend("there is no filter for that".into());
        let search = self.plan.searches.get(&service).ok_or_else(no_filter)?;
        if service == Service::Auth {
            return self.judge(search, &question.key, deadline).await;
        }
        let entries = self.search(search, &question.key, deadline).await?;
        value(&entries, service, &search.attributes)
    }

    /// A connection may be dead without a word.
    pub fn reset(&self) {
        self.link.lose_all();
    }

    async fn search(&self, search: &Search, key: &str, deadline: Instant) -> Result<Vec<Entry>, Trouble> {
        let filter = search.filter.replace("%s", &ldap_escape(key));
        link::ask(&self.link, || self.connect(), |ldap| self.plan.search(ldap, &filter, &search.attributes, deadline))
            .await
    }

    async fn connect(&self) -> Result<Ldap, Trouble> {
        let first = if self.plan.bind.is_some() { First::Bind } else { First::Search };
        let mut ldap = self.plan.connect(first).await?;
        if let Some((name, password)) = &self.plan.bind {
            let result = ldap.simple_bind(name, password).await.map_err(lost)?;
            if result.rc != code::SUCCESS {
                return Err(Trouble::Backend(format!("login as {name}: {}", said(result.rc, &result.text))));
            }
        }
        Ok(ldap)
    }

    /// Finds the user's entry and logs in as that, on a connection of its own: a login changes who a connection is.
    async fn judge(&self, search: &Search, key: &str, deadline: Instant) -> Looked {
        let (user, password) = key.split_once(':').unwrap_or((key, ""));
        if password.is_empty() {
            // A login without a password is anonymous, and succeeds (RFC 4513 §5.1.2).
            return Ok(None);
        }
        let entries = self.search(search, user, deadline).await?;
        let dn = match entries.as_slice() {
            [] => return Ok(None),
            [entry] => &entry.dn,
            _ => return Err(several(&entries)),
        };
        let mut ldap = self.plan.connect(First::Bind).await?;
        let result = ldap.simple_bind(dn, password).await.map_err(lost)?;
        match result.rc {
            code::SUCCESS => Ok(Some(user.to_owned())),
            code::INVALID_CREDENTIALS => Ok(None),
            rc => Err(Trouble::Backend(format!("login as {dn}: {}", said(rc, &result.text)))),
        }
    }
}

impl Plan {
    /// The first server that takes a connection.
    async fn connect(&self, first: First) -> Result<Ldap, Trouble> {
        let mut why = String::new();
        for server in &self.servers {
            match server.connect(first).await {
                Ok(stream) => {
                    let settings = LdapConnSettings::new().set_std_stream(stream);
                    let (connection, ldap) = LdapConnAsync::with_settings(settings, "ldapi:///").await.map_err(lost)?;
                    // It ends when the last handle is gone or the connection is; who asks hears of that by himself.
                    tokio::spawn(connection.drive());
                    return Ok(ldap);
                }
                Err(error) => why = format!("{server}: {error}"),
            }
        }
        Err(Trouble::Backend(why))
    }

    async fn search(
        &self,
        mut ldap: Ldap,
        filter: &str,
        attributes: &[String],
        deadline: Instant,
    ) -> Said<Result<Vec<Entry>, Trouble>> {
        let seconds = self.timeout.as_secs().clamp(1, i32::MAX as u64) as i32;
        let bounds = SearchOptions::new().sizelimit(ROWS as i32).timelimit(seconds);
        ldap.with_search_options(bounds);
        // None at all (RFC 4511 §4.5.1.8), where it counts only that there is an entry.
        let wanted = if attributes.is_empty() { vec!["1.1".to_owned()] } else { attributes.to_vec() };
        let started = ldap.streaming_search(&self.base, Scope::Subtree, filter, wanted).await;
        let mut stream = match started {
            Ok(stream) => stream,
            Err(LdapError::FilterParsing) => {
                return Said::Answer(Err(Trouble::Entry("the key makes no valid filter".into())));
            }
            Err(error) => return Said::Lost(why(error)),
        };
        let (id, mut entries, mut referred) = (stream.ldap_handle().last_id(), Vec::new(), None);
        let until = tokio::time::Instant::from_std(deadline);
        loop {
            match tokio::time::timeout_at(until, stream.next()).await {
                Ok(Ok(Some(found))) if found.is_ref() => referred = Some(elsewhere(found.0)),
                Ok(Ok(Some(found))) => match Entry::read(found.0) {
                    Some(entry) => entries.push(entry),
                    None => return Said::Lost("an answer that is not LDAP".into()),
                },
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Said::Lost(why(error)),
                Err(_) => {
                    // The server need not go on, and its late answer is for nobody.
                    let mut handle = stream.ldap_handle().clone();
                    stream.finish().await;
                    tokio::spawn(async move { handle.abandon(id).await });
                    let seconds = self.timeout.as_secs_f32();
                    return Said::Answer(Err(Trouble::Backend(format!("no answer within {seconds} s"))));
                }
            }
        }
        let result = stream.finish().await;
        Said::Answer(match result.rc {
            // What was not found here may be there.
            code::SUCCESS if entries.is_empty() && referred.is_some() => Err(referral(referred.as_deref())),
            code::SUCCESS => Ok(entries),
            // A base that is mistyped, or not there yet, is no reason to say that its users do not exist.
            code::NO_SUCH_OBJECT => Err(Trouble::Backend(format!("there is no {} in the directory", self.base))),
            code::SIZE_LIMIT => Err(Trouble::Entry("more entries than the server gives at once".into())),
            code::REFERRAL => Err(referral(referred.as_deref())),
            rc => Err(Trouble::Backend(said(rc, &result.text))),
        })
    }
}

fn searches(settings: &Settings, problems: &mut Vec<Problem>) -> BTreeMap<Service, Search> {
    let mut attributes = settings.per_service("", "_attributes");
    let mut searches = BTreeMap::new();
    for (service, (key, line)) in settings.per_service("", "_filter") {
        let filter = line.value;
        if parse_filter(filter.replace("%s", "x")).is_err() {
            let help = "a filter has parentheses round everything: (&(objectClass=posixAccount)(uid=%s))";
            problems.push(settings.about(&key, format!("`{filter}` is not a filter"), Some(help.into())));
        }
        let parameters: &[usize] = if service == Service::Auth { &[1] } else { service.parameters() };
        if !parameters.contains(&filter.matches("%s").count().min(1)) {
            let help = if parameters == [0] { "it asks for all entries" } else { "`%s` is where the key goes" };
            let what = if parameters == [0] { "a `%s` for which there is no key" } else { "no `%s`" };
            problems.push(settings.about(&key, format!("`{key}` has {what}"), Some(help.into())));
        }
        let attributes = attributes.remove(&service);
        let listed: Vec<String> = attributes.as_ref().map_or(Vec::new(), |(_, line)| names(&line.value));
        match &attributes {
            None if service.rows() != Rows::Any => {
                let name = service.name();
                let help = format!("add a line `{name}_attributes …` to {}", settings.path().display());
                problems.push(settings.about(&key, format!("there is no `{name}_attributes` for it"), Some(help)));
            }
            Some((name, _)) if !service.columns().contains(&listed.len()) => {
                let wanted = either(service.columns());
                problems.push(settings.about(name, format!("{} attributes, {wanted} needed", listed.len()), None));
            }
            _ => {}
        }
        searches.insert(service, Search { filter, attributes: listed });
    }
    for (key, _) in attributes.values() {
        let filter = key.replace("_attributes", "_filter");
        problems.push(settings.about(key, format!("there is no `{filter}` for it"), None));
    }
    searches
}

fn names(list: &str) -> Vec<String> {
    list.split([',', ' ', '\t']).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The text of the record.
fn value(entries: &[Entry], service: Service, attributes: &[String]) -> Looked {
    let Some(first) = entries.first() else { return Ok(None) };
    let mut values = Vec::new();
    match service.rows() {
        Rows::Any => {
            let text = attributes.first().and_then(|name| first.values(name).first()?.clone().ok());
            return Ok(Some(text.unwrap_or_default()));
        }
        Rows::One if entries.len() > 1 => return Err(several(entries)),
        Rows::One => values.push(record(first, service, attributes)?),
        Rows::Many if attributes.len() == 1 => {
            for entry in entries {
                let found = entry.values(&attributes[0]);
                if found.is_empty() {
                    return Err(lacks(entry, &attributes[0]));
                }
                for value in found {
                    values.push(value.clone().map_err(|()| not_text(entry, &attributes[0]))?);
                }
            }
        }
        Rows::Many => {
            for entry in entries {
                values.push(record(entry, service, attributes)?);
            }
        }
    }
    if values.len() > ROWS {
        return Err(Trouble::Entry(format!("more than {ROWS} values")));
    }
    Ok(Some(values.join(BETWEEN_ROWS)))
}

/// Attributes of one entry, each of which has one value.
fn record(entry: &Entry, service: Service, attributes: &[String]) -> Result<String, Trouble> {
    let mut parts = Vec::with_capacity(attributes.len());
    for name in attributes {
        match entry.values(name) {
            [] => return Err(lacks(entry, name)),
            [Ok(value)] => parts.push(value.as_str()),
            [Err(())] => return Err(not_text(entry, name)),
            several => {
                let what = format!("{} has {} values of {name}, one is wanted", entry.dn, several.len());
                return Err(Trouble::Entry(what));
            }
        }
    }
    Ok(parts.join(service.joint()))
}

/// What is not shown to us may be there: that is no reason to say that there is no such user.
fn lacks(entry: &Entry, name: &str) -> Trouble {
    Trouble::Entry(format!("{} has no {name}, or it may not be read", entry.dn))
}

fn not_text(entry: &Entry, name: &str) -> Trouble {
    Trouble::Entry(format!("{} of {} is not UTF-8", name, entry.dn))
}

/// The server itself works, and this is worth a line of the log at once.
fn referral(to: Option<&str>) -> Trouble {
    let to = to.map_or(String::new(), |to| format!(" ({to})"));
    Trouble::Entry(format!(
        "the server refers to another one{to}, which is not asked: use that in `url`, or its part in `basedn`"
    ))
}

fn several(entries: &[Entry]) -> Trouble {
    Trouble::Entry(format!("{} entries, one is wanted: {} and {}", entries.len(), entries[0].dn, entries[1].dn))
}

fn said(rc: u32, text: &str) -> String {
    let known = match rc {
        code::TIME_LIMIT => "the server's time limit was met",
        code::NO_SUCH_OBJECT => "no such object",
        code::INVALID_CREDENTIALS => "wrong password, or no such user",
        code::BUSY => "the server is busy",
        code::UNAVAILABLE => "the server is shutting down",
        _ => "the server refused",
    };
    if text.is_empty() { format!("{known} (code {rc})") } else { format!("{known} (code {rc}: {text})") }
}

fn lost(error: LdapError) -> Trouble {
    Trouble::Backend(why(error))
}

fn why(error: LdapError) -> String {
    match error {
        LdapError::ResultRecv { .. } | LdapError::OpSend { .. } | LdapError::EndOfStream => {
            "the server has closed the connection".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
