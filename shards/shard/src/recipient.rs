//! What becomes of a recipient: most are taken as they are, the others are expanded first (`conf/src/expand`), and whatever
//! that needs to know is asked for here.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;

use ringpost_conf::expand::{Delivery, Expansion, Identity, Question, Refusal, Step, Way};
use ringpost_conf::tables::{Answer, ServiceKind};
use ringpost_conf::{Decision, Facts, FormatValues, Lookup, TableId};
use ringpost_io::Runtime;
use ringpost_smtp::dsn::OfRecipient;
use ringpost_smtp::{Reply, Transaction};
use ringpost_tls::Secured;

use crate::ask::NameAnswer;
use crate::dispatch::Envelope;
use crate::event::{Event, Origin};
use crate::login::Proceeding;
use crate::settings::Settings;
use crate::shard::{Shard, World};
use crate::{client_name, limits, lookups, replies};

/// Who is speaking, as far as the connection tells.
pub(crate) struct Client {
    pub(crate) origin: Origin,
    /// The address of ours that it has reached.
    pub(crate) local: IpAddr,
    pub(crate) listener: usize,
    pub(crate) session: u64,
    /// What encrypts the session.
    pub(crate) secured: Option<Box<Secured>>,
    /// Who has logged in, as the session says at MAIL.
    pub(crate) user: Option<Box<str>>,
    /// A login of several steps is under way.
    pub(crate) proceeding: Option<Proceeding>,
    /// Nobody could say yet whom its certificate stands for.
    pub(crate) is_unsure: bool,
    /// Whether the rules name it, once that was wanted.
    pub(crate) is_named: OnceCell<bool>,
}

impl Client {
    /// Whether it is nobody we know: it is not of this host, has not logged in, shows no certificate that is good, and no rule
    /// that takes mail names its address. What it says in MAIL may be anything.
    pub(crate) fn is_stranger(&self, settings: &Settings) -> bool {
        let Some(address) = self.origin.address() else { return false };
        let names = self.secured.as_ref().and_then(|secured| secured.client.names());
        if self.user.is_some() || names.is_some() || settings.is_local(address, self.local) {
            return false;
        }
        let facts = || Facts { source: Some(address), ..Facts::default() };
        !*self.is_named.get_or_init(|| settings.config.names_client(&facts()))
    }
}

/// What the accepted recipients have become, in the transaction's order.
#[derive(Default)]
pub(crate) struct Recipients {
    accepted: Vec<Accepted>,
    /// Deliveries of all of them, before repetitions are left out.
    deliveries: usize,
}

enum Accepted {
    /// One delivery by this action, for the forward-path as it is.
    Plain(usize),
    /// These.
    Expanded(Vec<Delivery>),
}

/// What is known of a recipient at once.
pub(crate) enum First {
    /// The verdict.
    Verdict(Result<(), Reply>),
    /// It must be expanded: ask [`Recipients::expand`].
    Expand,
}

/// What is known of the client's name, where rules ask for it; who comes by the local socket has none.
fn client_name_of<W: World>(shard: &Shard<W>, client: &Client, settings: &Settings) -> Option<Rc<NameAnswer>> {
    if !settings.asks_client_names {
        return None;
    }
    match client.origin.address() {
        Some(address) => client_name::known(shard, address),
        None => Some(Rc::new(NameAnswer::None)),
    }
}

impl Recipients {
    /// First match wins; nothing matching is a refusal. Neither waits nor allocates for a recipient that is taken as it is.
    pub(crate) fn decide<W: World>(
        &mut self,
        shard: &Shard<W>,
        client: &Client,
        settings: &Settings,
        helo: &str,
        tx: &Transaction<'_>,
        recipient: &str,
    ) -> First {
        let name = client_name_of(shard, client, settings);
        let facts = facts(shard, client, settings, helo, tx, recipient, name.as_deref());
        let nobody = &mut |_: TableId, _: ServiceKind, _: &str| Answer::<()>::Pending;
        let refusal = match settings.config.decide_with(&facts, nobody) {
            Decision::Action(action)
                if settings.config.actions[action].is_plain() && !settings.config.is_srs(&facts) =>
            {
                if let Err(reply) = self.make_room(1) {
                    return First::Verdict(Err(reply));
                }
                self.accepted.push(Accepted::Plain(action));
                return First::Verdict(Ok(()));
            }
            Decision::Action(_) | Decision::Needs(_) => return First::Expand,
            Decision::Reject { code, status, text } => Reply::owned(code, status, text.to_owned()),
            Decision::NoMatch { domain_is_known: true } => replies::of(&Refusal::NoSuchRecipient),
            Decision::NoMatch { domain_is_known: false } => replies::of(&Refusal::NotHere),
            Decision::Unknown => replies::of(&Refusal::LookupFailed),
        };
        First::Verdict(Err(self.refuse(shard, client, tx, recipient, refusal)))
    }

    /// Expands a recipient: all that it stands for is taken, or it is refused.
    pub(crate) async fn expand<W: World>(
        &mut self,
        shard: &Rc<Shard<W>>,
        client: &Client,
        settings: &Settings,
        helo: &str,
        tx: &Transaction<'_>,
        recipient: &str,
    ) -> Result<(), Reply> {
        let name = client_name_of(shard, client, settings);
        let facts = facts(shard, client, settings, helo, tx, recipient, name.as_deref());
        let refusal = match expand(shard, settings, facts).await {
            Ok(deliveries) => match self.make_room(deliveries.len()) {
                Ok(()) => {
                    self.accepted.push(Accepted::Expanded(deliveries));
                    return Ok(());
                }
                Err(reply) => reply,
            },
            Err(refusal) => replies::of(&refusal),
        };
        Err(self.refuse(shard, client, tx, recipient, refusal))
    }

    fn refuse<W: World>(
        &self,
        shard: &Shard<W>,
        client: &Client,
        tx: &Transaction<'_>,
        recipient: &str,
        refusal: Reply,
    ) -> Reply {
        let (session, sender, reply) = (client.session, tx.reverse_path(), refusal.to_string());
        shard.event(&Event::RecipientRefused { session, sender, recipient, reply: &reply });
        refusal
    }

    /// Of each, in order, whether an action that it is delivered by reads reports; of none, where no action does.
    pub(crate) fn are_read<'s>(&'s self, settings: &'s Settings) -> impl Iterator<Item = bool> + 's {
        let reads = |action: usize| settings.config.actions[action].feedback;
        let accepted = if settings.reads_feedback { &self.accepted[..] } else { &[] };
        accepted.iter().map(move |accepted| match accepted {
            Accepted::Plain(action) => reads(*action),
            Accepted::Expanded(all) => all.iter().any(|one| reads(one.action)),
        })
    }

    fn make_room(&mut self, deliveries: usize) -> Result<(), Reply> {
        if self.deliveries + deliveries > limits::DELIVERIES_PER_MESSAGE {
            return Err(replies::too_many_deliveries());
        }
        self.deliveries += deliveries;
        Ok(())
    }

    /// The envelopes of the message, each delivery once however many recipients have led to it.
    pub(crate) fn envelopes(self, settings: &Settings, tx: &Transaction<'_>, tag: &str) -> Vec<Envelope> {
        let paths = tx.recipients().iter().copied();
        if let ([Accepted::Plain(action)], &[path]) = (&self.accepted[..], tx.recipients()) {
            return vec![Envelope::new(0, path, (path, tx.request(0)), Some(*action), Way::Address)];
        }
        let mut unique = Unique::new(settings, tx.reverse_path(), tag);
        for (place, (path, accepted)) in paths.zip(self.accepted).enumerate() {
            // Each of those whom an alias stands for is told as if it had been named (RFC 3461 §5.2.7): there is no `expanded`.
            let asked = (path, tx.request(place));
            match accepted {
                Accepted::Plain(action) => unique.add(asked, path, action, Way::Address),
                Accepted::Expanded(all) => {
                    all.into_iter().for_each(|one| unique.add(asked, &one.address, one.action, one.way));
                }
            }
        }
        unique.envelopes
    }
}

/// Envelopes without repetitions.
pub(crate) struct Unique<'s> {
    settings: &'s Settings,
    values: FormatValues<'s>,
    seen: HashSet<(usize, Identity)>,
    pub(crate) envelopes: Vec<Envelope>,
}

impl<'s> Unique<'s> {
    pub(crate) fn new(settings: &'s Settings, sender: &'s str, tag: &'s str) -> Self {
        let delimiter = settings.config.smtp.sub_address_delimiter;
        let values = FormatValues { sender, tag, delimiter, ..FormatValues::default() };
        Self { settings, values, seen: HashSet::new(), envelopes: Vec::new() }
    }

    /// Adds what the forward-path `asked.0` has become, with what is asked of it.
    pub(crate) fn add(&mut self, asked: (&str, OfRecipient<'_>), address: &str, action: usize, way: Way) {
        let (path, _) = asked;
        let values = FormatValues { recipient: path, destination: path, ..self.values };
        let identity = Identity::of(action, address, &way, &self.settings.config, &values);
        if self.seen.insert((self.settings.outlines.canonical(action), identity)) {
            let index = u16::try_from(self.envelopes.len()).expect("bounded by DELIVERIES_PER_MESSAGE");
            self.envelopes.push(Envelope::new(index, address, asked, Some(action), way));
        }
    }
}

/// Runs an expansion to its end.
///
/// # Errors
/// Why the recipient is not taken. What an administrator should know besides has been logged.
pub(crate) async fn expand<W: World>(
    shard: &Rc<Shard<W>>,
    settings: &Settings,
    facts: Facts<'_>,
) -> Result<Vec<Delivery>, Refusal> {
    let mut expansion = Expansion::new(&settings.config, &settings.outlines, facts);
    let deadline = shard.runtime.now() + limits::EXPANSION;
    let outcome = loop {
        match expansion.step() {
            Step::Done(outcome) => break outcome,
            Step::Needs(mut questions) => {
                let name = Question::Lookup(Lookup::ReverseName);
                let before = questions.len();
                questions.retain(|question| *question != name);
                let of_client = async {
                    match facts.source {
                        Some(address) if questions.len() < before => {
                            Some(client_name::find(shard, address, deadline).await)
                        }
                        _ => None,
                    }
                };
                let others = lookups::all(shard, &settings.config, questions.clone(), deadline);
                let (told, others) = futures_lite::future::zip(of_client, others).await;
                told.into_iter().for_each(|told| expansion.tell(name.clone(), told));
                others.into_iter().for_each(|(question, told)| expansion.tell(question, told));
            }
        }
    };
    if expansion.size() > limits::EXPANSION_TURN {
        shard.runtime.yield_now().await;
    }
    expansion.take_notes().iter().for_each(|note| shard.warn(note));
    outcome
}

#[allow(clippy::too_many_arguments)]
fn facts<'a, W: World>(
    shard: &Shard<W>,
    client: &'a Client,
    settings: &'a Settings,
    helo: &'a str,
    tx: &'a Transaction<'_>,
    recipient: &'a str,
    name: Option<&'a NameAnswer>,
) -> Facts<'a> {
    Facts {
        source: client.origin.address(),
        local: client.origin.address().is_none_or(|address| settings.is_local(address, client.local)),
        helo,
        tag: &settings.policies[client.listener].tag,
        reverse_name: client_name::fact(name),
        sender: tx.reverse_path(),
        recipient,
        tls: client.secured.is_some(),
        certificate: client.secured.as_ref().and_then(|secured| secured.client.names()),
        authenticated: client.user.as_deref(),
        now_ms: if settings.config.srs.key.is_some() { shard.runtime.unix_ms() } else { 0 },
    }
}
