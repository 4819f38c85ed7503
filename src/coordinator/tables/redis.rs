//! `redis:` tables: `GET` of a prefix and the key, over one connection that carries all lookups and is made again when it
//! is lost. Speaks to Valkey as well.

use std::collections::BTreeMap;
use std::path::PathBuf;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind, Value,
};

use super::Surroundings;
use super::cache::Question;
use super::link::{self, Link, Said};
use super::service::Service;
use super::settings::{ConfigFile, Keys, Problem, Settings};
use super::table::{Looked, Trouble};

const KEYS: Keys = Keys {
    plain: &["url", "username", "password"],
    per_service: &[("", "_prefix")],
    // The key alone is then the name in Redis.
    may_be_empty: &["_prefix"],
};

/// A server and the prefixes under which it has the services.
pub struct Store {
    client: Client,
    prefixes: BTreeMap<Service, String>,
    link: Link<MultiplexedConnection>,
}

impl Store {
    /// Reads the configuration file. The server is connected to when it is first needed.
    pub fn new(file: &ConfigFile, surroundings: &Surroundings) -> Result<Self, Vec<Problem>> {
        let settings = Settings::parse(file, KEYS)?;
        let client = client(&settings, surroundings).map_err(|problem| vec![problem])?;
        let prefixes = settings.per_service("", "_prefix").into_iter();
        let prefixes: BTreeMap<_, _> = prefixes.map(|(service, (_, line))| (service, line.value)).collect();
        // It keeps texts and judges nothing.
        if prefixes.contains_key(&Service::Auth) {
            let help = "use `credentials_prefix`, and keep hashes there".to_owned();
            return Err(vec![settings.about("auth_prefix", "Redis cannot judge passwords", Some(help))]);
        }
        Ok(Self { client, prefixes, link: Link::new() })
    }

    /// The services that there are prefixes for.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.prefixes.keys().copied()
    }

    /// How many connections have been made.
    pub fn connections(&self) -> u64 {
        self.link.made()
    }

    /// Gets the text of a key.
    pub async fn ask(&self, question: &Question) -> Looked {
        let no_prefix = || Trouble::Backend("there is no prefix for that".into());
        let prefix = self.prefixes.get(&question.service.asked_as()).ok_or_else(no_prefix)?;
        let name = format!("{prefix}{}", question.key);
        link::ask(&self.link, || self.connect(), |connection| get(connection, &name)).await
    }

    /// The connection may be dead without a word.
    pub fn reset(&self) {
        self.link.lose_all();
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        // The table has its own time-outs.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
        connected.map_err(|error| Trouble::Backend(why(&error)))
    }
}

async fn get(mut connection: MultiplexedConnection, name: &str) -> Said<Looked> {
    match redis::cmd("GET").arg(name).query_async::<Value>(&mut connection).await {
        Ok(Value::Nil) => Said::Answer(Ok(None)),
        Ok(Value::BulkString(bytes)) => Said::Answer(match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Trouble::Entry(format!("{name:?} is not UTF-8"))),
        }),
        Ok(Value::SimpleString(text)) => Said::Answer(Ok(Some(text))),
        Ok(other) => Said::Answer(Err(Trouble::Backend(format!("an answer that GET does not have: {other:?}")))),
        Err(error) if error.code() == Some("WRONGTYPE") => {
            Said::Answer(Err(Trouble::Entry(format!("{name:?} holds no string"))))
        }
        // It answers, if with an error: a new connection would hear the same.
        Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => Said::Answer(Err(Trouble::Backend(why(&error)))),
        Err(error) => Said::Lost(why(&error)),
    }
}

fn why(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::AuthenticationFailed => "login failed: wrong user name or password".to_owned(),
        ErrorKind::Server(ServerErrorKind::BusyLoading) => "the server is still loading its data".to_owned(),
        _ => error.to_string(),
    }
}

fn client(settings: &Settings, surroundings: &Surroundings) -> Result<Client, Problem> {
    let url = settings.need("url")?;
    let wrong = |what: String| {
        let help = "redis://HOST, redis://HOST:PORT/DATABASE or unix:///PATH/TO/SOCKET";
        settings.about("url", what, Some(help.to_owned()))
    };
    if url.starts_with("rediss:") {
        return Err(wrong("rediss is not supported: use redis:// on this machine or a trusted network".into()));
    }
    let info = url.into_connection_info().map_err(|_| wrong(format!("`{url}` is not the URL of a Redis server")))?;
    let mut login = info.redis_settings().clone();
    if let Some(name) = settings.get("username") {
        login = login.set_username(name);
    }
    if let Some(password) = settings.get("password") {
        login = login.set_password(password);
    }
    let address = match info.addr() {
        ConnectionAddr::Unix(path) => ConnectionAddr::Unix(socket(path, surroundings)),
        other => other.clone(),
    };
    let info = info.set_redis_settings(login).set_addr(address);
    Client::open(info).map_err(|error| wrong(error.to_string()))
}

fn socket(path: &std::path::Path, surroundings: &Surroundings) -> PathBuf {
    surroundings.place(path)
}

#[cfg(test)]
mod tests;
