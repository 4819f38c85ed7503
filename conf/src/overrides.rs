//! Limits of a running server, `ringpost limit set SELECTOR KEY=VALUE…`: shapes that stand in front of the configuration's
//! (grammar §4.13). Words and values are those of `shaping`.

use std::sync::Arc;
use std::time::Duration;

use ringpost_address::Folded;

use crate::limits::OVERRIDE_TIME_MAX;
use crate::model::{Line, Shape, ShapeSelector, Shaping};
use crate::rules::Among;
use crate::tables::DomainSet;
use crate::values::{self, Rate};

/// Where the value of a key is in a shape, and what kind of value it is.
enum Field {
    Count(fn(&mut Shape) -> &mut Option<u32>),
    Rate(fn(&mut Shape) -> &mut Option<Rate>),
    Time(fn(&mut Shape) -> &mut Option<Duration>),
}

/// What can be set.
const FIELDS: [(&str, Field); 10] = [
    ("connections", Field::Count(|shape| &mut shape.connections)),
    ("connections-per-host", Field::Count(|shape| &mut shape.connections_per_host)),
    ("connections-per-source", Field::Count(|shape| &mut shape.connections_per_source)),
    ("open-rate", Field::Rate(|shape| &mut shape.open_rate)),
    ("rate", Field::Rate(|shape| &mut shape.rate)),
    ("rate-per-source", Field::Rate(|shape| &mut shape.rate_per_source)),
    ("burst", Field::Count(|shape| &mut shape.burst)),
    ("messages-per-connection", Field::Count(|shape| &mut shape.messages_per_connection)),
    ("recipients", Field::Count(|shape| &mut shape.recipients)),
    ("idle", Field::Time(|shape| &mut shape.idle)),
];

const DURATION: &str = "a number and s, m, h, d or w: `4h`";

/// Makes a shaping of a selector (`domain:example.org`, `mx:*.example.org`, `host:mx1.example.org`, `default`) and of settings
/// `KEY=VALUE`. Its name is the selector, in lower case.
///
/// # Errors
/// What is wrong, by its name, and what would be right.
pub fn shaping(selector: &str, settings: &[String]) -> Result<Shaping, String> {
    let (name, selector) = parse_selector(selector)?;
    let mut shape = Shape::default();
    if settings.is_empty() {
        return Err("there is nothing to set: a limit is `KEY=VALUE`, for example `rate=5/s`".to_owned());
    }
    for (number, setting) in settings.iter().enumerate() {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| format!("`{setting}` has no value: a limit is `KEY=VALUE`, for example `rate=5/s`"))?;
        if settings[..number].iter().any(|earlier| earlier.split_once('=').is_some_and(|(other, _)| other == key)) {
            return Err(format!("`{key}` is given twice"));
        }
        set(&mut shape, key, value)?;
    }
    Ok(Shaping { name, selector, shape, line: Line { file: "ringpost limit".into(), number: 0 } })
}

/// The name of the shaping that [`shaping`] makes of a selector.
///
/// # Errors
/// It is none.
pub fn name(selector: &str) -> Result<String, String> {
    parse_selector(selector).map(|(name, _)| name)
}

/// How long an override lasts: `2h`.
///
/// # Errors
/// It is no duration, nothing, or longer than [`OVERRIDE_TIME_MAX`].
pub fn time(text: &str) -> Result<Duration, String> {
    let time = values::duration(text).ok_or_else(|| format!("not a duration: `{text}`; it is {DURATION}"))?;
    match time {
        Duration::ZERO => Err("it would be over at once".to_owned()),
        time if time > OVERRIDE_TIME_MAX => {
            Err(format!("the longest is `{}`; what is to stay belongs into the configuration", show(OVERRIDE_TIME_MAX)))
        }
        time => Ok(time),
    }
}

/// A duration as people write it: `1h30m`.
pub fn show(time: Duration) -> String {
    values::show_duration(time)
}

/// What a shape says of the keys that can be set, as `KEY=VALUE`.
pub fn settings(shape: &Shape) -> Vec<String> {
    let mut shape = shape.clone();
    let shown = FIELDS.iter().filter_map(|(key, field)| {
        let value = match field {
            Field::Count(of) => of(&mut shape).map(|count| count.to_string()),
            Field::Rate(of) => of(&mut shape).map(|rate| rate.to_string()),
            Field::Time(of) => of(&mut shape).map(values::show_duration),
        };
        value.map(|value| format!("{key}={value}"))
    });
    shown.collect()
}

fn parse_selector(text: &str) -> Result<(String, ShapeSelector), String> {
    if text == "default" {
        return Ok((text.to_owned(), ShapeSelector::Default));
    }
    let (kind, pattern) = text.split_once(':').unwrap_or((text, ""));
    let of: fn(Among<DomainSet>) -> ShapeSelector = match kind {
        "domain" => ShapeSelector::Domain,
        "mx" => ShapeSelector::Mx,
        "host" => ShapeSelector::Host,
        _ => {
            return Err(format!(
                "`{text}` is not a selector: it is `domain:example.org`, `mx:*.example.org`, `host:mx1.example.org` or `default`"
            ));
        }
    };
    let pattern = Folded::new(pattern.strip_suffix('.').unwrap_or(pattern));
    let mut names = DomainSet::default();
    if !names.insert(pattern.as_str()) {
        let pattern = pattern.as_str();
        return Err(format!("`{kind}:` needs a name or a pattern such as `*.example.org`, not `{pattern}`"));
    }
    Ok((format!("{kind}:{}", pattern.as_str()), of(Among::Table(Arc::new(names)))))
}

fn set(shape: &mut Shape, key: &str, value: &str) -> Result<(), String> {
    let Some((_, field)) = FIELDS.iter().find(|(name, _)| *name == key) else {
        let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no limit `{key}`; there are {}", known.join(", ")));
    };
    let wrong = |needs: &str| format!("`{key}` needs {needs}, not `{value}`");
    match field {
        Field::Count(of) => {
            let count = values::number(value).and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0);
            *of(shape) = Some(count.ok_or_else(|| wrong("a whole number from 1: `5`"))?);
        }
        Field::Rate(of) => *of(shape) = Some(values::rate(value).ok_or_else(|| wrong("a rate: `100/s` or `5/10s`"))?),
        Field::Time(of) => *of(shape) = Some(values::duration(value).ok_or_else(|| wrong(DURATION))?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn every_key_is_read_and_shown_as_the_grammar_writes_it() {
        let words = [
            "connections=5",
            "connections-per-host=3",
            "connections-per-source=2",
            "open-rate=3/m",
            "rate=100/s",
            "rate-per-source=5/10s",
            "burst=7",
            "messages-per-connection=20",
            "recipients=50",
            "idle=1m30s",
        ];
        let made = shaping("domain:X.Example", &all(&words)).unwrap();
        assert_eq!((settings(&made.shape), made.name.as_str()), (all(&words), "domain:x.example"));
        assert_eq!(made.shape.rate.map(|rate| rate.count), Some(100));
    }

    #[test]
    fn selectors_are_for_what_they_name() {
        let fits = |selector: &str, domain: &str, host: &str| {
            shaping(selector, &all(&["burst=1"])).unwrap().fit(None, domain, &[host]).is_some()
        };
        assert!(fits("default", "a.example", "mx.b.example"));
        assert!(fits("domain:a.example", "a.example", "mx.b.example"));
        assert!(!fits("domain:b.example", "a.example", "mx.b.example"));
        assert!(fits("mx:*.b.example", "a.example", "mx.b.example") && fits("host:MX.b.example.", "", "mx.b.example"));
        assert!(!fits("mx:*.b.example", "x.b.example", "mx.c.example"));
        for bad in ["", "x.example", "domain", "domain:", "domain:a b", "mx:192.0.2.1", "relay:x", "Default"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let wrong = |words: &[&str]| shaping("default", &all(words)).unwrap_err();
        assert!(wrong(&["rates=5/s"]).starts_with("there is no limit `rates`; there are connections, "));
        assert_eq!(wrong(&["rate=5"]), "`rate` needs a rate: `100/s` or `5/10s`, not `5`");
        assert_eq!(wrong(&["connections=0"]), "`connections` needs a whole number from 1: `5`, not `0`");
        assert_eq!(wrong(&["idle=5"]), "`idle` needs a number and s, m, h, d or w: `4h`, not `5`");
        assert_eq!(wrong(&["burst=1", "burst=2"]), "`burst` is given twice");
        assert!(
            wrong(&["rate"]).starts_with("`rate` has no value") && wrong(&[]).starts_with("there is nothing to set")
        );
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        assert!(time("2").is_err() && time("0s").is_err() && time("60w").is_err());
    }
}
