//! `ringpost explain`: what would become of a recipient, and why, without sending anything. The rules and the expansion are
//! those that the server runs. Tables in memory are read with the configuration; others are asked through the running server,
//! and are unknown without one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use futures_lite::future::block_on;
use ringpost_conf::expand::{Expansion, Outlines, Question, Step, Told, User};
use ringpost_conf::tables::{Keys, ServiceKind};
use ringpost_conf::{Config, Explanation, Facts, Lookup};

use ringpost_shard::{HandOver, UserRecord};

use super::client::{Found, Server, print};
use super::{Seams, check};
use crate::coordinator::{Errands, list, tables};
use crate::exit::{Code, Failure};
use crate::ipc::codec::Channel;
use crate::ipc::control::{Answer, Request};
use crate::reading::{Reading, look};
use crate::supervisor::delivery::{FOR_FORWARDS, Lane, Trust};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Client's address, or `socket`
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = source)]
    from: Source,
    /// MAIL FROM, without brackets; empty: the null sender
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    sender: String,
    /// RCPT TO, without brackets
    #[arg(long, value_name = "ADDRESS")]
    rcpt: String,
    /// Name in HELO or EHLO
    #[arg(long, value_name = "NAME", default_value = "")]
    helo: String,
    /// Authenticated user
    #[arg(long)]
    user: Option<String>,
    /// The session is encrypted
    #[arg(long)]
    tls: bool,
    /// The listener's tag
    #[arg(long, default_value = "")]
    tag: String,
    /// Configuration [default: /etc/ringpost/ringpost.conf]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a macro; it wins over the file
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = super::define)]
    define: Vec<(String, String)>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Where the client is.
#[derive(Clone, Copy, Debug)]
struct Source(Option<IpAddr>);

fn source(text: &str) -> Result<Source, String> {
    match text {
        "socket" => Ok(Source(None)),
        _ => match text.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => Ok(Source(Some(address))),
            Err(_) => Err("an IPv4 or IPv6 address, or `socket`".into()),
        },
    }
}

pub fn run(options: &Options, seams: &Seams, state: Option<PathBuf>) -> Result<(), Failure> {
    let path = check::path(options.config.as_ref(), seams);
    let config = match Reading::load_from_disk(&path, seams, &options.define).1 {
        Ok((config, _)) => config,
        Err(reports) => {
            eprint!("{}", reports.render(look()));
            return Err(Failure::new(Code::Configuration, ""));
        }
    };
    let outlines = Outlines::new(&config);
    let facts = Facts {
        source: options.from.0,
        helo: &options.helo,
        tag: &options.tag,
        tls: options.tls,
        authenticated: options.user.as_deref(),
        sender: &options.sender,
        recipient: &options.rcpt,
        now_ms: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64),
        ..Facts::default()
    };
    let mut world = World {
        config: &config,
        seams,
        client: options.from.0,
        state: state.unwrap_or_else(|| config.store.path.clone()),
        helpers: None,
    };
    let mut expansion = Expansion::new(&config, &outlines, facts);
    let outcome = loop {
        match expansion.step() {
            Step::Done(outcome) => break outcome,
            Step::Needs(questions) => {
                for question in questions {
                    let told = world.ask(&question)?;
                    expansion.tell(question, told);
                }
            }
        }
    };
    if let Ok(deliveries) = &outcome {
        loop {
            let questions = expansion.directions(deliveries);
            if questions.is_empty() {
                break;
            }
            for question in questions {
                let told = world.ask(&question)?;
                expansion.tell(question, told);
            }
        }
    }
    let explanation = Explanation::new(expansion, outcome);
    print(&if options.json { explanation.json() + "\n" } else { explanation.to_string() })
}

/// Who answers.
struct World<'c> {
    config: &'c Config,
    seams: &'c Seams,
    client: Option<IpAddr>,
    state: PathBuf,
    helpers: Option<Errands>,
}

fn record(user: &User) -> UserRecord {
    let home = user.home.clone().into();
    UserRecord { name: user.name.clone(), uid: user.uid, gid: user.gid, home, in_table: user.in_table }
}

impl World<'_> {
    fn ask(&mut self, question: &Question) -> Result<Told, Failure> {
        Ok(match question {
            Question::Lookup(Lookup::Table { table, service, key }) => {
                let name = self.config.table_name(*table);
                let delimiter = self.config.smtp.sub_address_delimiter;
                let keys = Keys::new(*service, key, delimiter).map(|key| key.as_str().to_owned());
                self.table(name, *service, keys.collect())?
            }
            Question::Lookup(Lookup::ReverseName) => match self.client {
                Some(address) => self.server(&Request::ClientName { address })?,
                None => Told::NotFound,
            },
            Question::User(name) => match tables::system_user(name, self.seams.root.as_deref()) {
                Ok(Some(record)) => Told::Found(record),
                Ok(None) => Told::NotFound,
                Err(error) => Told::Failed(error.to_string()),
            },
            Question::Forward(user) => block_on(self.helpers()?.forward(record(user))).into(),
            Question::Include { path, user: Some(user) } => {
                block_on(self.helpers()?.list(record(user), path.clone())).into()
            }
            Question::Include { path, user: None } => list::look(path),
        })
    }

    /// Processes that become a user to read his files, as those of the server do.
    fn helpers(&mut self) -> Result<&Errands, Failure> {
        if self.helpers.is_none() {
            let lane = || Lane::start(FOR_FORWARDS, Trust::default()).map(|(_, end)| Channel::of(end));
            self.helpers = Some(Errands::start(lane()?, lane()?)?);
        }
        Ok(self.helpers.as_ref().expect("made above"))
    }

    fn table(&self, name: &str, service: ServiceKind, keys: Vec<String>) -> Result<Told, Failure> {
        let Some(service) = tables::Service::of(service) else {
            return Ok(Told::Failed(format!("tables do not answer {service} lookups")));
        };
        let request = Request::TableKeys { table: name.to_owned(), service, keys };
        self.server(&request)
    }

    /// Asks the running server.
    fn server(&self, request: &Request) -> Result<Told, Failure> {
        let mut server = match Server::find(&self.state) {
            Ok(Found::Running(server)) => server,
            Ok(Found::Stopped) | Err(_) => {
                let why = format!("no server that could ask it runs with the state directory {}", self.state.display());
                return Ok(Told::Failed(why));
            }
        };
        let mut found = None;
        server.ask(request, |answer| {
            if let Answer::Lookup(answer) = answer {
                found = Some(answer);
            }
            Ok(())
        })?;
        Ok(found.map_or_else(|| Told::Failed("the server gave no answer".into()), Told::from))
    }
}
