//! Names from a file instead of the network (`--dns FILE`): a part of RFC 1035 §5's master file format. A name that is
//! not in the file does not exist.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// TTL of records that state none, unless `$TTL` does.
const TTL_DEFAULT: u32 = 60;

/// All names of a file. Names are lower case, without a final dot; the root is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    names: BTreeMap<String, Records>,
    /// The names are not here, but there.
    server: Option<SocketAddr>,
    /// Keys of the root, by which its answers are validated.
    anchors: String,
}

/// What a name has; TTL first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Mail exchangers: TTL, preference, host (empty: null MX, RFC 7505).
    pub exchangers: Vec<(Duration, u16, String)>,
    /// Addresses of both families.
    pub addresses: Vec<(Duration, IpAddr)>,
    /// Names of an address: TTL, host. The name that has them is that of [`reverse_name`](super::dns::reverse_name).
    pub pointers: Vec<(Duration, String)>,
    /// TXT records: TTL, all strings of one together.
    pub texts: Vec<(Duration, String)>,
    /// `SERVFAIL`: whoever asks for the name gets no answer.
    pub fails: bool,
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ZoneError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Zone {
    /// The server of names that is to be asked instead, and the keys of the root that it has, a line each.
    pub fn server(&self) -> Option<(SocketAddr, &str)> {
        self.server.map(|server| (server, &self.anchors[..]))
    }

    /// Reads a file's text: `name [ttl] [IN] MX 10 host`, `A`, `AAAA`, `PTR`, `TXT`, `$ORIGIN`, `$TTL`, `;` comments; a line that
    /// begins with a blank continues the name before it. `$SERVER address:port` and `$ANCHOR` with a root key
    /// (`. IN DNSKEY …`): names are asked of that server. `name SERVFAIL` has lookups of the name fail. Other record types make the name exist and hold nothing.
    pub fn parse(text: &str) -> Result<Self, ZoneError> {
        let mut reader = Reader { zone: Self::default(), origin: String::new(), ttl: TTL_DEFAULT, name: None };
        for (index, line) in text.lines().enumerate() {
            reader.line(line).map_err(|what| ZoneError { line: index + 1, what })?;
        }
        Ok(reader.zone)
    }

    /// A name's records; `None`: there is no such name.
    pub fn get(&self, name: &str) -> Option<&Records> {
        self.names.get(&name.trim_end_matches('.').to_ascii_lowercase())
    }
}

struct Reader {
    zone: Zone,
    origin: String,
    ttl: u32,
    name: Option<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut quoted = false;
        let comment = line.find(|each| {
            quoted ^= each == '"';
            each == ';' && !quoted
        });
        let line = comment.map_or(line, |comment| &line[..comment]);
        let continues = line.starts_with([' ', '\t']);
        let mut words = line.split_ascii_whitespace().peekable();
        let Some(&first) = words.peek() else { return Ok(()) };
        match first {
            "$ORIGIN" => {
                let origin = words.nth(1).ok_or("$ORIGIN names no domain")?;
                self.origin = origin.trim_end_matches('.').to_ascii_lowercase();
                return Ok(());
            }
            "$SERVER" => {
                let server = words.nth(1).ok_or("$SERVER has no address")?;
                let server = server.parse().map_err(|_| format!("'{server}' is not an address and a port"))?;
                self.zone.server = Some(server);
                return Ok(());
            }
            "$ANCHOR" => {
                words.next();
                words.for_each(|word| self.zone.anchors.extend([word, " "]));
                self.zone.anchors.push('\n');
                return Ok(());
            }
            "$TTL" => {
                let ttl = words.nth(1).ok_or("$TTL states no time")?;
                self.ttl = ttl.parse().map_err(|_| format!("'{ttl}' is not a number of seconds"))?;
                return Ok(());
            }
            _ => {}
        }
        if !continues {
            words.next();
            self.name = Some(self.absolute(first));
        }
        let name = self.name.clone().ok_or("the first record has no name")?;
        let mut ttl = self.ttl;
        while let Some(word) = words.peek() {
            if let Ok(seconds) = word.parse() {
                ttl = seconds;
            } else if !word.eq_ignore_ascii_case("IN") {
                break;
            }
            words.next();
        }
        let kind = words.next().ok_or("no record type")?.to_ascii_uppercase();
        self.record(name, Duration::from_secs(ttl.into()), &kind, words)
    }

    fn record<'a>(
        &mut self,
        name: String,
        ttl: Duration,
        kind: &str,
        mut words: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        match kind {
            "MX" => {
                let preference = words.next().ok_or("MX without a preference")?;
                let preference = preference.parse().map_err(|_| format!("'{preference}' is not a preference"))?;
                let host = self.absolute(words.next().ok_or("MX without a host")?);
                self.zone.names.entry(name).or_default().exchangers.push((ttl, preference, host));
            }
            "A" | "AAAA" => {
                let text = words.next().ok_or("no address")?;
                let address: IpAddr = text.parse().map_err(|_| format!("'{text}' is not an address"))?;
                if address.is_ipv4() != (kind == "A") {
                    return Err(format!("'{text}' is of the other family"));
                }
                self.zone.names.entry(name).or_default().addresses.push((ttl, address));
            }
            "PTR" => {
                let host = self.absolute(words.next().ok_or("PTR without a host")?);
                self.zone.names.entry(name).or_default().pointers.push((ttl, host));
            }
            "SERVFAIL" => self.zone.names.entry(name).or_default().fails = true,
            "TXT" => {
                let text = words.collect::<Vec<_>>().join(" ");
                let strings = text.split('"').enumerate().filter(|(number, _)| number % 2 == 1);
                let text = match text.contains('"') {
                    true => strings.map(|(_, string)| string).collect(),
                    false => text,
                };
                self.zone.names.entry(name).or_default().texts.push((ttl, text));
                return Ok(());
            }
            "NS" | "SOA" | "SRV" | "TLSA" | "CAA" => {
                self.zone.names.entry(name).or_default();
                return Ok(());
            }
            _ => return Err(format!("record type {kind} is not known here (MX, A, AAAA, PTR, TXT are)")),
        }
        words.next().map_or(Ok(()), |extra| Err(format!("'{extra}' is too much")))
    }

    /// With `$ORIGIN`, a name without a final dot is below it; without, all names are whole.
    fn absolute(&self, name: &str) -> String {
        match name.strip_suffix('.') {
            Some(whole) => whole.to_ascii_lowercase(),
            None if name == "@" => self.origin.clone(),
            None if self.origin.is_empty() => name.to_ascii_lowercase(),
            None => format!("{}.{}", name.to_ascii_lowercase(), self.origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_all_shapes_are_read() {
        let zone = Zone::parse(
            "; a comment\n\
             Example.org. 300 IN MX 10 mx1.example.org.   ; first\n\
             \x20                MX 20 mx2.example.org.\n\
             mx1.example.org A 192.0.2.1\n\
             mx1.example.org 5 AAAA 2001:db8::1\n\
             \n\
             nothing.example MX 0 .\n\
             text.example TXT \"hello; there\"\n\
             $ORIGIN sub.test.\n\
             $TTL 7\n\
             @ MX 5 mail\n\
             mail A 127.0.0.1\n\
             1.0.0.127.in-addr.arpa. PTR mail\n",
        )
        .unwrap();
        let second = Duration::from_secs;
        let records = zone.get("EXAMPLE.org.").unwrap();
        assert_eq!(
            records.exchangers,
            [(second(300), 10, "mx1.example.org".to_owned()), (second(60), 20, "mx2.example.org".to_owned())]
        );
        let addresses = &zone.get("mx1.example.org").unwrap().addresses;
        assert_eq!(addresses.iter().map(|address| address.0.as_secs()).collect::<Vec<_>>(), [60, 5]);
        assert_eq!(zone.get("nothing.example").unwrap().exchangers[0].2, "");
        assert_eq!(zone.get("text.example").unwrap().texts, [(second(60), "hello; there".to_owned())]);
        assert_eq!(zone.get("sub.test").unwrap().exchangers, [(second(7), 5, "mail.sub.test".to_owned())]);
        assert!(zone.get("mail.sub.test").is_some());
        assert_eq!(zone.get("mail"), None);
        let pointers = &zone.get("1.0.0.127.in-addr.arpa").unwrap().pointers;
        assert_eq!(pointers[..], [(second(7), "mail.sub.test".to_owned())]);
    }

    #[test]
    fn errors_name_their_line() {
        let cases = [
            ("\n  MX 10 a", "line 2: the first record has no name"),
            ("a MX ten b", "line 1: 'ten' is not a preference"),
            ("a A 300.0.0.1", "line 1: '300.0.0.1' is not an address"),
            ("a A ::1", "line 1: '::1' is of the other family"),
            ("a CNAME b", "line 1: record type CNAME is not known here (MX, A, AAAA, PTR, TXT are)"),
            ("a MX 10 b c", "line 1: 'c' is too much"),
            ("a 60 IN", "line 1: no record type"),
        ];
        for (text, expected) in cases {
            assert_eq!(Zone::parse(text).unwrap_err().to_string(), expected);
        }
    }
}
