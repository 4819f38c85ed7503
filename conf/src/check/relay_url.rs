//! Relay URLs in the configuration: what is wrong with one, and where.

use super::Reading;
use super::tables::Found;
use crate::model::RelayHost;
use crate::report::{Report, did_you_mean};
use crate::tables::RelayUrlError;

/// One URL; `None` if something is wrong with it, and that was told.
pub(super) fn relay_host(entry: &Found, reading: &mut Reading<'_>) -> Option<RelayHost> {
    let report = match RelayHost::parse(&entry.text) {
        Ok(host) => match host.moved(reading.options.port_offset) {
            Some(host) => return Some(host),
            None => not_url(entry).help("with --port-offset its port is above 65535"),
        },
        Err(RelayUrlError::Form(help)) => not_url(entry).maybe_help(help.map(str::to_owned)),
        Err(RelayUrlError::Scheme(scheme)) => {
            let help = did_you_mean(&scheme, RelayHost::schemes());
            Report::new("E0504", entry.span, format!("unknown relay scheme `{scheme}`")).maybe_help(help)
        }
        Err(RelayUrlError::Label) => {
            let message = "credentials need a scheme that guarantees encryption";
            Report::new("E0605", entry.span, message).help("write `smtp+tls://` or `smtps://`")
        }
    };
    reading.report(report);
    None
}

fn not_url(entry: &Found) -> Report {
    Report::new("E0504", entry.span, format!("not a relay URL: `{}`", entry.text))
}
