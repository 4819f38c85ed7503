//! Whom a client's certificate stands for (`auth-cert`). Only a certificate that is good stands for anybody, and a table that
//! does not answer is not one that says nobody.

use std::rc::Rc;

use ringpost_conf::expand::{Question, Told};
use ringpost_conf::tables::{Keys, ServiceKind, UserName, Value};
use ringpost_conf::{CertificateAuth, Keyed, Lookup, TableId};
use ringpost_io::Runtime;
use ringpost_tls::{Shown, Subject};

use crate::recipient::Client;
use crate::settings::Settings;
use crate::shard::{Shard, World};
use crate::{limits, lookups};

/// The user, if there is one. The names in the certificate are looked for in their order; the first that is found counts.
///
/// # Errors
/// Nobody can say now; why, was logged.
pub(crate) async fn user<W: World>(
    shard: &Rc<Shard<W>>,
    settings: &Settings,
    client: &Client,
) -> Result<Option<String>, ()> {
    let listener = settings.config.listeners.get(client.listener);
    let (Some(stands_for), Some(secured)) = (listener.and_then(|one| one.auth.certificate.as_ref()), &client.secured)
    else {
        return Ok(None);
    };
    let Shown::Good(subject) = &secured.client else { return Ok(None) };
    let delimiter = settings.config.smtp.sub_address_delimiter;
    match stands_for {
        CertificateAuth::Itself => Ok(subject.addresses.first().cloned()),
        CertificateAuth::Table(Keyed::Memory(users)) => {
            let mut found = subject.names.iter().map(|name| users.find(Keys::new(ServiceKind::Cert, name, delimiter)));
            Ok(found.find_map(|user| user.map(|user| user.0.clone())))
        }
        // Boxed: most connections show no certificate.
        CertificateAuth::Table(Keyed::Remote(table)) => Box::pin(ask(shard, settings, *table, subject)).await,
    }
}

async fn ask<W: World>(
    shard: &Rc<Shard<W>>,
    settings: &Settings,
    table: TableId,
    subject: &Subject,
) -> Result<Option<String>, ()> {
    let deadline = shard.runtime.now() + limits::LOGIN;
    let questions = subject
        .names
        .iter()
        .map(|name| Question::Lookup(Lookup::Table { table, service: ServiceKind::Cert, key: name.clone() }));
    for (_, told) in lookups::all(shard, &settings.config, questions.collect(), deadline).await {
        let why = match told {
            Told::Found(text) => match UserName::parse(text.trim()) {
                Ok(user) => return Ok(Some(user.0)),
                Err(error) => format!("its entry is not {}", error.what),
            },
            Told::NotFound => continue,
            Told::Failed(why) | Told::Unsafe(why) => why,
        };
        let (name, table) = (subject.called(), settings.config.table_name(table));
        shard.warn(&format!("table <{table}>: whom the certificate of {name} stands for is not known: {why}"));
        return Err(());
    }
    Ok(None)
}
