//! `listen`: which words go together, which certificates there are, who may log in (grammar §4.1).

use std::collections::HashMap;
use std::net::IpAddr;

use ringpost_address::parse_ip;

use super::declared::What;
use super::{Check, exclude};
use crate::model::{
    Authentication, CertificateAuth, Family, LOCAL_TAG, Listener, ListenerTls, PasswordAuth, Proxies, Senders, TlsMode,
    Users, Where,
};
use crate::parse::ast::{Arg, OptionLine, Said};
use crate::report::Report;
use crate::source_text::Span;

/// A listener's port where the line says none.
const SMTP_PORT: u16 = 25;
const SMTPS_PORT: u16 = 465;

impl Check<'_, '_> {
    /// All listeners, each once. The local socket is there without being named, too.
    pub(super) fn listeners(&mut self, server: &str, message_bytes_max: u64) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        let mut places: HashMap<(Where, u16, Family), Span> = HashMap::new();
        for said in self.ast.of("listen") {
            let listener = self.listener(said, server, message_bytes_max);
            let Some(listener) = listener.filter(|_| !said.broken) else { continue };
            // With SO_REUSEPORT the system would not object: half of the connections would go to either.
            let key = (listener.place.clone(), listener.port, listener.family);
            match places.get(&key).copied() {
                Some(first) if listener.place != Where::Socket => {
                    let name = place_name(&listener.place);
                    let what = format!("`listen on {name}` with port {} is given twice", listener.port);
                    let help = format!("first at {}", self.reading.texts.at(first));
                    self.reading.report(Report::new("E0601", said.span, what).also(first, "first here").help(help));
                }
                _ => {
                    places.insert(key, said.span);
                    listeners.push(listener);
                }
            }
        }
        if !listeners.iter().any(|listener| listener.place == Where::Socket) {
            listeners.push(Listener::socket(server, message_bytes_max));
        }
        listeners
    }

    fn listener(&mut self, said: &Said, server: &str, message_bytes_max: u64) -> Option<Listener> {
        let options = &said.options;
        let place = self.place(said)?;
        exclude(options, &["inet4", "inet6"], Some("without either, both are used"), self.reading);
        exclude(options, &["tls", "tls-require", "smtps"], Some("write two `listen` lines"), self.reading);
        exclude(options, &["auth", "auth-optional"], None, self.reading);
        exclude(options, &["hostname", "hostnames"], None, self.reading);
        let hostname = options.text("hostname").unwrap_or_else(|| server.to_owned());
        let tls = self.listener_tls(said, &hostname);
        let auth = self.authentication(said, &place, tls.mode);
        let senders = self.senders(options.find("senders"));
        let hostnames = options.targ("hostnames").and_then(|(_, targ)| self.tables.keyed(targ, self.reading));
        let filters = self.names.find_all(What::Filter, options.names("filter"), self.reading);
        let rate_limits = self.names.find_all(What::RateLimit, options.names("ratelimit"), self.reading);
        let proxies = match options.find("proxy-v2") {
            None => None,
            Some(option) => {
                self.tables.maybe_among(&option.arg, self.reading).map(|set| set.map_or(Proxies::Near, Proxies::Listed))
            }
        };
        let port = self.listener_port(said, &place, tls.mode)?;
        let tag = options.text("tag").unwrap_or_else(|| match place {
            Where::Socket => LOCAL_TAG.to_owned(),
            _ => String::new(),
        });
        Some(Listener {
            family: match (options.has("inet4"), options.has("inet6")) {
                (true, _) => Family::V4,
                (_, true) => Family::V6,
                _ => Family::Both,
            },
            place,
            port,
            proxies,
            tls,
            auth,
            senders,
            hostname,
            hostnames,
            tag,
            filters,
            mask_source: options.has("mask-src"),
            no_dsn: options.has("no-dsn"),
            received_auth: options.has("received-auth"),
            message_bytes_max: options.number("max-message-size").unwrap_or(message_bytes_max),
            rate_limits,
            line: self.reading.line(said.span),
        })
    }

    fn place(&mut self, said: &Said) -> Option<Where> {
        if said.has_key("socket") {
            return Some(Where::Socket);
        }
        if said.has_key("all") {
            return Some(Where::All);
        }
        if said.has_key("egress") {
            return Some(Where::Egress);
        }
        let word = said.word(0)?;
        let (place, exists) = match parse_ip(&word.text) {
            Some(address) => (Where::Address(address), self.has_address(address)),
            None => (Where::Name(word.text.to_string()), self.has_interface(&word.text)),
        };
        if !exists {
            self.reading.report(Report::new("W0813", word.span, format!("`{}` does not exist yet", word.text)));
        }
        Some(place)
    }

    /// Whether this host has the address. Without knowledge of its interfaces nobody can say.
    fn has_address(&self, address: IpAddr) -> bool {
        let options = self.reading.options;
        options.interfaces.is_none()
            || address.is_loopback()
            || address.is_unspecified()
            || options.addresses.contains(&address)
    }

    /// Whether it is an interface, or looks like a host name, which is asked of the DNS later.
    fn has_interface(&self, name: &str) -> bool {
        let Some(interfaces) = &self.reading.options.interfaces else { return true };
        matches!(name, "lo0" | "localhost") || name.contains('.') || interfaces.iter().any(|have| have == name)
    }

    fn listener_port(&mut self, said: &Said, place: &Where, mode: TlsMode) -> Option<u16> {
        if *place == Where::Socket {
            return Some(0);
        }
        let default = if mode == TlsMode::Implicit { SMTPS_PORT } else { SMTP_PORT };
        self.moved_port(&said.options, default)
    }

    fn listener_tls(&mut self, said: &Said, hostname: &str) -> ListenerTls {
        let options = &said.options;
        let modes = [("tls", TlsMode::Offered), ("tls-require", TlsMode::Required), ("smtps", TlsMode::Implicit)];
        let mode = modes.into_iter().find_map(|(name, mode)| options.find(name).map(|option| (option, mode)));
        let mut tls = ListenerTls {
            ca: self.names.maybe(What::Ca, options.word("ca"), self.reading),
            protocols: self.protocols(options.word("protocols")),
            ciphers: self.ciphers(options.word("ciphers")).or_else(|| self.smtp_ciphers()),
            ..ListenerTls::default()
        };
        for option in options.all("pki") {
            if let Arg::Word(name) = &option.arg {
                tls.pkis.extend(self.names.find(What::Pki, name, self.reading));
            }
        }
        let Some((option, mode)) = mode else { return tls };
        tls.mode = mode;
        tls.verify = matches!(option.arg, Arg::Key(_));
        if tls.pkis.is_empty() && !options.has("pki") {
            let by_itself = [hostname, "*"].into_iter().find(|name| self.names.touch(What::Pki, name));
            tls.pkis.extend(by_itself.map(str::to_owned));
        }
        // A `pki` that broke off may be the one that is missing.
        if tls.pkis.is_empty() && !options.has("pki") && !self.ast.broken {
            self.no_certificate(option, mode, hostname);
        }
        tls
    }

    fn no_certificate(&mut self, option: &OptionLine, mode: TlsMode, hostname: &str) {
        let word = option.word;
        self.reading.report(match mode {
            TlsMode::Off | TlsMode::Offered => {
                let message = format!("no certificate: a self-signed one for `{hostname}` will be made");
                Report::new("W0808", word.span, message)
            }
            TlsMode::Required | TlsMode::Implicit => {
                let help = format!("declare a `pki` and name it: `{} pki NAME`", word.value);
                Report::new("E0612", word.span, format!("`{}` needs a certificate", word.value)).help(help)
            }
        });
    }

    fn authentication(&mut self, said: &Said, place: &Where, mode: TlsMode) -> Authentication {
        let options = &said.options;
        let mut auth = Authentication::default();
        let password = options.find("auth").or_else(|| options.find("auth-optional"));
        if let Some(option) = password {
            let is_near = match place {
                Where::Address(address) => address.is_loopback(),
                Where::Name(name) => matches!(name.as_str(), "lo0" | "lo" | "localhost"),
                Where::Socket => true,
                _ => false,
            };
            if mode == TlsMode::Off && !is_near {
                let message = format!("`{}` without TLS would send passwords in clear", option.word.value);
                let report = Report::new("E0603", option.word.span, message);
                self.reading.report(report.help("add `tls`, `tls-require` or `smtps`"));
            }
            let users = match &option.arg {
                Arg::Targ(targ) => self.tables.keyed(targ, self.reading).map(Users::Table),
                _ => Some(Users::System),
            };
            auth.password = match users {
                None => PasswordAuth::Off,
                Some(users) if option.name == "auth" => PasswordAuth::Required(users),
                Some(users) => PasswordAuth::Offered(users),
            };
        }
        if let Some(option) = options.find("auth-cert") {
            if mode == TlsMode::Off {
                let message = "`auth-cert` has no effect";
                let report = Report::new("W0810", option.word.span, message);
                self.reading.report(report.help("without TLS there is no certificate"));
            }
            auth.certificate = match &option.arg {
                Arg::Targ(targ) => self.tables.keyed(targ, self.reading).map(CertificateAuth::Table),
                _ => Some(CertificateAuth::Itself),
            };
        }
        auth
    }

    fn senders(&mut self, option: Option<&OptionLine>) -> Option<Senders> {
        let Arg::With(targ, rest) = &option?.arg else { return None };
        let Arg::Targ(targ) = &**targ else { return None };
        let table = self.tables.keyed(targ, self.reading)?;
        Some(Senders { table, masquerade: rest.has("masquerade") })
    }
}

fn place_name(place: &Where) -> String {
    match place {
        Where::All => "all".to_owned(),
        Where::Egress => "egress".to_owned(),
        Where::Address(address) => address.to_string(),
        Where::Name(name) => name.clone(),
        Where::Socket => "socket".to_owned(),
    }
}
