//! Tables as a person asks them: any table of a configuration, in memory or not, with a question as a session would put it.
//! What is said is alike for the same entry, whoever keeps it.

use ringpost_conf::tables::{self, Keys, ServiceKind};
use ringpost_conf::{Config, Smtp};
use ringpost_shard::Said;
use serde::{Deserialize, Serialize};

use super::{Answer, Service, Tables};

/// A table, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// As it was declared; who answers, if it is built in.
    pub declared: String,
    /// What statements ask it for.
    pub services: Vec<String>,
    /// Why its backend fails, if it does.
    pub failing: Option<String>,
}

/// Asks. `config` is what declares the table; without one, it is among `tables` alone.
pub async fn look(tables: &Tables, config: Option<&Config>, table: &str, service: ServiceKind, key: &str) -> Answer {
    let smtp = config.map_or_else(Smtp::default, |config| config.smtp.clone());
    let delimiter = smtp.sub_address_delimiter;
    let declared = config.and_then(|config| config.tables.iter().find(|one| one.name == table));
    if let Some(declared) = declared.filter(|declared| declared.backend.is_memory()) {
        return match declared.memory.look(service, key, delimiter) {
            Some(tables::Answer::Found(values)) => Answer::Found(values.join(", ")),
            Some(tables::Answer::NotFound) => Answer::NotFound,
            Some(tables::Answer::Failed | tables::Answer::Pending) => Answer::Failed("it is not in memory".into()),
            None => Answer::Failed(format!("no statement asks <{table}> for {service} lookups")),
        };
    }
    let Some(asked) = Service::of(service) else {
        return Answer::Failed(format!("its backend does not answer {service} lookups"));
    };
    let said = tables.lookup_first(table, asked, keys(service, key, delimiter)).await;
    match said {
        Said::Found { text, .. } => match tables::shown(service, key, &text) {
            Ok(shown) => Answer::Found(shown),
            Err(why) => Answer::Failed(why),
        },
        other => other.into(),
    }
}

/// The keys of a question. Whole lists have the empty one; `<>` is how people write the null sender.
fn keys(service: ServiceKind, key: &str, delimiter: char) -> Vec<String> {
    let key = match service {
        ServiceKind::SourceAddr => return vec![String::new()],
        ServiceKind::RelayHost if key.is_empty() => return vec![String::new()],
        ServiceKind::MailAddr if key == "<>" => "",
        _ => key,
    };
    Keys::new(service, key, delimiter).map(|key| key.as_str().to_owned()).collect()
}

/// The tables of a configuration, or the one of that name; then those that are asked without being declared.
///
/// # Errors
/// There is no such table.
pub fn show(tables: &Tables, config: Option<&Config>, name: Option<&str>) -> Result<Vec<Shown>, String> {
    let wanted = |one: &str| name.is_none_or(|name| name == one);
    let declared = config.map(|config| config.tables.as_slice()).unwrap_or_default();
    let mut shown: Vec<Shown> = declared
        .iter()
        .filter(|table| wanted(&table.name))
        .map(|table| Shown {
            name: table.name.clone(),
            declared: match table.statement.is_empty() {
                true => format!("table {} is built in", table.name),
                false => table.statement.clone(),
            },
            services: table.services.iter().map(ToString::to_string).collect(),
            failing: tables.figures(&table.name).ok().and_then(|figures| figures.failing),
        })
        .collect();
    for name in tables.names().filter(|name| wanted(name)) {
        if !declared.iter().any(|table| table.name == name) {
            let figures = tables.figures(name)?;
            let (name, declared) = (figures.name, format!("table {name} is built in"));
            shown.push(Shown { name, declared, services: figures.services, failing: figures.failing });
        }
    }
    match name {
        Some(name) if shown.is_empty() => Err(format!("there is no table <{name}>")),
        _ => Ok(shown),
    }
}
