//! `protocols` and `ciphers`, written as OpenSSL and LibreSSL write them: words with `:` or `,` between, `!` and `-` take away.

use super::Check;
use crate::model::{Cipher, TlsVersion};
use crate::parse::ast::Word;
use crate::report::Report;
use crate::source_text::{Span, narrow};

/// What separates words of a list.
const BETWEEN: [char; 3] = [':', ',', ' '];
/// Words for kinds of cipher suites of which the server has none: they may be taken away, and add nothing.
const ABSENT: &[&str] = &[
    "aNULL",
    "eNULL",
    "NULL",
    "MD5",
    "RC4",
    "RC2",
    "DES",
    "3DES",
    "IDEA",
    "SEED",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA384",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "LOW",
    "MEDIUM",
    "RSA",
    "kRSA",
    "DH",
    "DHE",
    "EDH",
    "kDHE",
    "kEDH",
    "ADH",
    "AECDH",
    "aDH",
    "kDH",
    "ECDH",
    "kECDH",
    "aECDH",
    "DSS",
    "aDSS",
    "PSK",
    "kPSK",
    "aPSK",
    "kECDHEPSK",
    "kDHEPSK",
    "kRSAPSK",
    "SRP",
    "kSRP",
    "aSRP",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "AESCCM",
    "AESCCM8",
    "CBC",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "KRB5",
    "GOST",
    "GOST94",
    "GOST89MAC",
    "INSECURE",
];
/// Of these the names of cipher suites are made that a server of another kind may have.
const PARTS: &[&str] = &[
    "TLS",
    "WITH",
    "ECDHE",
    "ECDH",
    "DHE",
    "EDH",
    "DH",
    "ADH",
    "AECDH",
    "RSA",
    "ECDSA",
    "DSS",
    "PSK",
    "SRP",
    "KRB5",
    "anon",
    "AES",
    "AES128",
    "AES256",
    "128",
    "256",
    "40",
    "56",
    "CBC",
    "CBC3",
    "GCM",
    "CCM",
    "CCM8",
    "8",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA384",
    "MD5",
    "DES",
    "3DES",
    "EDE",
    "RC4",
    "RC2",
    "NULL",
    "EXP",
    "EXPORT",
    "IDEA",
    "SEED",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "CHACHA20",
    "POLY1305",
];

impl Check<'_, '_> {
    /// `protocols`: the versions that are spoken.
    pub(super) fn protocols(&mut self, word: Option<&Word>) -> Option<Vec<TlsVersion>> {
        let word = word?;
        let mut spoken: Vec<TlsVersion> = Vec::new();
        for (number, (part, span)) in parts(word).into_iter().enumerate() {
            let (sign, name) = sign(part);
            let Some(versions) = versions(name) else {
                let near = self.reading.nearest(name, ["TLSv1.2", "TLSv1.3", "all", "secure", "default"]);
                let report = Report::new("E0511", span, format!("no version of TLS is called `{name}`"));
                self.reading.report(report.maybe_help(near.map(|near| format!("did you mean `{near}`?"))));
                return None;
            };
            // A list that begins with what is not wanted means all others.
            if number == 0 && sign != Sign::Add {
                spoken = vec![TlsVersion::V13, TlsVersion::V12];
            }
            spoken.retain(|version| !versions.contains(version));
            if sign == Sign::Add {
                spoken.extend(versions);
            }
        }
        if spoken.is_empty() {
            let report = Report::new("E0511", word.span, format!("`{}` leaves no version of TLS", word.text));
            self.reading.report(report.help("TLSv1.2 and TLSv1.3 are spoken, and nothing older"));
        }
        Some(spoken)
    }

    /// `ciphers`: the cipher suites, the preferred first. Those of TLS 1.3 are all there, but for what is taken away, unless one
    /// of them is named: so OpenSSL has it.
    pub(super) fn ciphers(&mut self, word: Option<&Word>) -> Option<Vec<&'static Cipher>> {
        let word = word?;
        let mut list = List::default();
        // How strong a cipher is, and by what order, is no question here.
        for (part, span) in parts(word).into_iter().filter(|(part, _)| !part.starts_with('@')) {
            let (sign, name) = sign(part);
            let meant = self.meant(name, span)?;
            list.apply(sign, name, &meant);
        }
        if list.chosen.is_empty() {
            let report = Report::new("E0511", word.span, format!("`{}` leaves no cipher suite", word.text));
            self.reading.report(report.help("`HIGH` are all that there are"));
        }
        Some(list.finish())
    }

    /// What `A+B` means: those that both words mean.
    fn meant(&mut self, name: &str, span: Span) -> Option<Vec<&'static Cipher>> {
        let mut meant: Vec<&'static Cipher> = Cipher::ALL.iter().collect();
        for word in name.split('+') {
            meant.retain(|cipher| cipher.is_meant(word));
            let is_known = ABSENT.iter().chain(Cipher::WORDS).any(|known| known.eq_ignore_ascii_case(word))
                || Cipher::ALL.iter().any(|cipher| cipher.is_named(word));
            if !is_known {
                self.no_cipher(word, span);
                return None;
            }
        }
        Some(meant)
    }

    fn no_cipher(&mut self, name: &str, span: Span) {
        let is_part = |part: &str| PARTS.iter().any(|known| known.eq_ignore_ascii_case(part));
        let is_elsewhere = name.contains(['-', '_']) && name.split(['-', '_']).all(is_part);
        let report = match is_elsewhere {
            true => Report::new("E0511", span, format!("the server has no cipher suite `{name}`"))
                .help("it has those with ECDHE and AES-GCM or ChaCha20, which all of today's servers have"),
            false => {
                let names = Cipher::ALL.iter().flat_map(Cipher::names).chain(Cipher::WORDS.iter().copied());
                let near = self.reading.nearest(name, names).map(|near| format!("did you mean `{near}`?"));
                Report::new("E0511", span, format!("no cipher suite is called `{name}`")).maybe_help(near)
            }
        };
        self.reading.report(report);
    }
}

/// What becomes of those that a word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Add,
    /// `+`: they come last, if they are there.
    Last,
    /// `-`
    Away,
    /// `!`: nor does a later word bring them back.
    Never,
}

#[derive(Default)]
struct List {
    chosen: Vec<&'static Cipher>,
    banned: Vec<&'static Cipher>,
    /// One of TLS 1.3 was named.
    names_new: bool,
}

impl List {
    fn apply(&mut self, sign: Sign, name: &str, meant: &[&'static Cipher]) {
        let Self { chosen, banned, names_new } = self;
        match sign {
            Sign::Add => {
                let more = meant.iter().filter(|one| !chosen.contains(one) && !banned.contains(one));
                let more: Vec<&'static Cipher> = more.copied().collect();
                chosen.extend(more);
                *names_new |= meant.iter().any(|one| one.version == TlsVersion::V13 && one.is_named(name));
            }
            Sign::Last => {
                let last: Vec<&'static Cipher> = chosen.extract_if(.., |one| meant.contains(one)).collect();
                chosen.extend(last);
            }
            Sign::Away => chosen.retain(|one| !meant.contains(one)),
            Sign::Never => {
                chosen.retain(|one| !meant.contains(one));
                banned.extend(meant);
            }
        }
    }

    fn finish(mut self) -> Vec<&'static Cipher> {
        if !self.names_new {
            self.apply(
                Sign::Add,
                "",
                &Cipher::ALL.iter().filter(|one| one.version == TlsVersion::V13).collect::<Vec<_>>(),
            );
        }
        self.chosen
    }
}

fn sign(part: &str) -> (Sign, &str) {
    let signs = [('!', Sign::Never), ('-', Sign::Away), ('+', Sign::Last)];
    let found = signs.into_iter().find_map(|(mark, sign)| Some((sign, part.strip_prefix(mark)?)));
    found.unwrap_or((Sign::Add, part))
}

/// The words of a list, each with its place.
fn parts(word: &Word) -> Vec<(&str, Span)> {
    let mut at = word.span.start + u32::from(word.quoted);
    let mut parts = Vec::new();
    for part in word.text.split(BETWEEN) {
        let end = at + narrow(part.len());
        if !part.is_empty() {
            parts.push((part, Span { start: at, end: end.min(word.span.end), ..word.span }));
        }
        at = end + 1;
    }
    parts
}

fn versions(name: &str) -> Option<Vec<TlsVersion>> {
    let both = || vec![TlsVersion::V13, TlsVersion::V12];
    Some(match name.to_ascii_lowercase().as_str() {
        "tlsv1.2" => vec![TlsVersion::V12],
        "tlsv1.3" => vec![TlsVersion::V13],
        // What LibreSSL calls so; of older versions there is none.
        "all" | "secure" | "default" | "legacy" | "tlsv1" => both(),
        // They may be taken away, and add nothing.
        "tlsv1.0" | "tlsv1.1" | "sslv2" | "sslv3" => Vec::new(),
        _ => return None,
    })
}
