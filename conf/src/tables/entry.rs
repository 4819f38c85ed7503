//! Values of entries: what stands behind a key, read once into a type. What a remote backend answers goes through the same code.

use std::fmt;
use std::path::PathBuf;

use ringpost_address::{Mailbox, is_domain_name, parse_literal};

use super::{AddressSet, RelayHost};
use crate::command::Command;
use crate::format::Format;
use crate::model::Reply;
use crate::reply;

/// A text is not what its service wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {what}")]
pub struct EntryError {
    /// What it should be, with its article.
    pub what: &'static str,
    /// How that is written, where it helps.
    pub how: Option<&'static str>,
}

/// A value of a mapping.
pub trait Value: Sized + Send + Sync + 'static {
    /// What a value is, for `` `x` is not … ``.
    const WHAT: &'static str;
    /// How one is written, where that helps.
    const HOW: Option<&'static str>;

    /// Reads one; `None` if it is not one.
    fn read(text: &str) -> Option<Self>;

    /// Reads one.
    ///
    /// # Errors
    /// What it should have been.
    fn parse(text: &str) -> Result<Self, EntryError> {
        Self::read(text).ok_or(EntryError { what: Self::WHAT, how: Self::HOW })
    }
}

/// What an alias, a virtual address or a line of `.forward` stands for (grammar §6.2).
#[derive(Clone, Debug, PartialEq)]
pub enum AliasTarget {
    /// A user of this host, or the word `relay` in `virtual` of a relay action.
    User(String),
    /// `\user`: that user's mailbox, and no further `.forward`.
    Mailbox(String),
    /// A mail address.
    Address(String),
    /// `/file`: append to it. As written, without `--root`.
    File(Box<Format>),
    /// `|command`: give it to a program.
    Pipe(Command),
    /// `:include:/path`: what the lines of that file stand for. As written, without `--root`.
    Include(PathBuf),
    /// `error:550 5.7.1 text`: refuse.
    Error(Box<Reply>),
}

impl Value for AliasTarget {
    const WHAT: &'static str = "an alias";
    const HOW: Option<&'static str> = Some("user, user@domain, /file, |command, :include:/file or error:550 text");

    fn read(text: &str) -> Option<Self> {
        if let Some(command) = text.strip_prefix('|') {
            return Command::parse(command.trim_start()).ok().map(Self::Pipe);
        }
        if text.starts_with('/') {
            return Format::parse(text).ok().map(Box::new).map(Self::File);
        }
        if let Some(path) = strip_word(text, ":include:") {
            return path.starts_with('/').then(|| Self::Include(path.into()));
        }
        if let Some(reply) = strip_word(text, "error:") {
            return reply::parse(reply).ok().map(Box::new).map(Self::Error);
        }
        if let Some(user) = text.strip_prefix('\\') {
            return is_user(user).then(|| Self::Mailbox(user.to_owned()));
        }
        if text.contains('@') {
            return Mailbox::parse(text).is_ok().then(|| Self::Address(text.to_owned()));
        }
        is_user(text).then(|| Self::User(text.to_owned()))
    }
}

impl fmt::Display for AliasTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(text) | Self::Address(text) => f.write_str(text),
            Self::Mailbox(user) => write!(f, "\\{user}"),
            Self::File(path) => f.write_str(path.as_written()),
            Self::Pipe(command) => write!(f, "|{command}"),
            Self::Include(path) => write!(f, ":include:{}", path.display()),
            Self::Error(reply) => write!(f, "error:{} {} {}", reply.code, reply.status, reply.text),
        }
    }
}

/// A user's record (K_USERINFO).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// The user's name, where the record says one: it may differ from the key.
    pub name: Option<String>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home directory, as written, without `--root`.
    pub home: String,
}

impl Value for UserRecord {
    const WHAT: &'static str = "a user record";
    const HOW: Option<&'static str> = Some("a user record is uid:gid:home or name:uid:gid:home");

    /// `uid:gid:home`, `name:uid:gid:home`, or a line of passwd(5), `name:password:uid:gid:gecos:home:shell`.
    fn read(text: &str) -> Option<Self> {
        let columns: Vec<&str> = text.split(':').collect();
        let (name, uid, gid, home) = match columns[..] {
            [uid, gid, home] => (None, uid, gid, home),
            [name, uid, gid, home] => (Some(name), uid, gid, home),
            [name, _, uid, gid, _, home, ..] => (Some(name), uid, gid, home),
            _ => return None,
        };
        let name = match name {
            Some(name) if !is_user(name) => return None,
            name => name.map(str::to_owned),
        };
        if !home.starts_with('/') {
            return None;
        }
        Some(Self { name, uid: id(uid)?, gid: id(gid)?, home: home.to_owned() })
    }
}

impl fmt::Display for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}:")?;
        }
        write!(f, "{}:{}:{}", self.uid, self.gid, self.home)
    }
}

/// A password or its hash. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being printed.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text itself, for whoever checks or sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Who logs in, and with what (K_CREDENTIALS). For a listener the secret is a hash, for a relay a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Who; where the record does not say, the key is.
    pub user: Option<String>,
    /// Hash or password.
    pub secret: Secret,
}

impl Value for Credentials {
    const WHAT: &'static str = "user:password";
    const HOW: Option<&'static str> = None;

    /// `user:secret`, the secret alone, or a line of passwd(5). A hash is known by its beginning, as it may have colons itself.
    fn read(text: &str) -> Option<Self> {
        let (user, secret) = match text.split_once(':') {
            Some((user, rest)) if is_passwd_line(text) => (Some(user), rest.split(':').next().unwrap_or_default()),
            Some((user, secret)) if !is_password_hash(text) => (Some(user), secret),
            _ => (None, text),
        };
        if secret.is_empty() || user == Some("") {
            return None;
        }
        Some(Self { user: user.map(str::to_owned), secret: Secret(secret.to_owned()) })
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}:")?;
        }
        f.write_str("…")
    }
}

/// Whether a text looks like a password hash that a listener may be given: crypt(3) with an algorithm's number, argon2, PBKDF2,
/// SCRAM keys, or an LDAP scheme in braces. Without salt and algorithm it is none, and nobody can authenticate with it.
pub fn is_password_hash(text: &str) -> bool {
    text.starts_with('$') || text.starts_with("SCRAM-") || (text.starts_with('{') && text.contains('}'))
}

/// Whether anybody can log in with this hash: its scheme is known here, and still safe enough to be checked.
pub fn is_known_scheme(hash: &str) -> bool {
    const BRACED: [&str; 11] =
        ["SHA", "SSHA", "SHA256", "SSHA256", "SHA384", "SSHA384", "SHA512", "SSHA512", "PLAIN", "CLEAR", "CLEARTEXT"];
    if let Some((scheme, rest)) = hash.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        let scheme = scheme.to_ascii_uppercase();
        return BRACED.contains(&scheme.as_str()) || scheme.starts_with("PBKDF2") || is_known_scheme(rest);
    }
    let id = hash.strip_prefix('$').and_then(|rest| rest.split('$').next()).unwrap_or_default();
    let is_crypt = matches!(id, "2a" | "2b" | "2y" | "5" | "6" | "y" | "argon2id" | "argon2i" | "argon2d");
    is_crypt || id.starts_with("pbkdf2") || hash.starts_with("SCRAM-SHA-256$")
}

/// Where a certificate or key is: in the entry, or in a file.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// The text, `-----BEGIN …`.
    Text(Secret),
    /// `file:/path`, as written, without `--root`.
    File(PathBuf),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("PEM"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl Value for Pem {
    const WHAT: &'static str = "a certificate or key";
    const HOW: Option<&'static str> = Some("PEM text, or file:/path");

    fn read(text: &str) -> Option<Self> {
        match text.strip_prefix("file:") {
            Some(path) => path.starts_with('/').then(|| Self::File(path.into())),
            None if text.starts_with('/') => Some(Self::File(text.into())),
            None => text.starts_with("-----BEGIN ").then(|| Self::Text(Secret(text.to_owned()))),
        }
    }
}

/// A name's chain and key (K_CERT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, the name's own certificate first.
    pub chain: Pem,
    /// The key of the first certificate.
    pub key: Pem,
}

impl Certificate {
    /// Reads both.
    ///
    /// # Errors
    /// What one of them should have been.
    pub fn parse(chain: &str, key: &str) -> Result<Self, EntryError> {
        Ok(Self { chain: Pem::parse(chain)?, key: Pem::parse(key)? })
    }
}

/// A domain's selector and key (K_DKIM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimKey {
    /// The selector, below `_domainkey`.
    pub selector: String,
    /// The file with the private key, as written, without `--root`.
    pub key: PathBuf,
}

impl Value for DkimKey {
    const WHAT: &'static str = "selector:keyfile";
    const HOW: Option<&'static str> = None;

    fn read(text: &str) -> Option<Self> {
        let (selector, key) = text.split_once(':')?;
        let good = is_domain_name(selector) && key.starts_with('/');
        good.then(|| Self { selector: selector.to_owned(), key: key.into() })
    }
}

/// A name to say in a greeting (K_ADDRNAME).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl Value for HostName {
    const WHAT: &'static str = "a host name";
    const HOW: Option<&'static str> = None;

    fn read(text: &str) -> Option<Self> {
        (is_domain_name(text) || parse_literal(text).is_some()).then(|| Self(text.to_owned()))
    }
}

/// The user that a certificate's subject is (K_CERT of `auth-cert`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(pub String);

impl Value for UserName {
    const WHAT: &'static str = "a user";
    const HOW: Option<&'static str> = None;

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains(char::is_whitespace)).then(|| Self(text.to_owned()))
    }
}

impl Value for RelayHost {
    const WHAT: &'static str = "a relay URL";
    const HOW: Option<&'static str> = None;

    fn read(text: &str) -> Option<Self> {
        RelayHost::parse(text).ok()
    }
}

/// Patterns that a user may send as (K_MAILADDRMAP), one value of a mapping.
#[derive(Clone, Debug)]
pub struct AddressPattern(pub String);

impl Value for AddressPattern {
    const WHAT: &'static str = "an address pattern";
    const HOW: Option<&'static str> = Some("user@domain, @domain or user");

    fn read(text: &str) -> Option<Self> {
        AddressSet::default().insert(text).then(|| Self(text.to_owned()))
    }
}

/// Whether this is `name:password:uid:gid:gecos:home`, with or without what follows.
pub(super) fn is_passwd_line(text: &str) -> bool {
    match text.split(':').collect::<Vec<_>>()[..] {
        [name, _, uid, gid, _, home, ..] => {
            is_user(name) && id(uid).is_some() && id(gid).is_some() && home.starts_with('/')
        }
        _ => false,
    }
}

/// Whether what a stranger has written may name a user: his mailbox is a file of that name, a mail store is told it.
pub fn is_user_name(text: &str) -> bool {
    is_user(text) && !text.starts_with('.')
}

/// What may be a user's name, as a local part without quotes.
fn is_user(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "\"<>@:/|,\\".contains(c);
    !text.is_empty() && !text.contains(bad)
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

fn strip_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| text[word.len()..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_targets() {
        let read = |text: &str| AliasTarget::parse(text).unwrap();
        assert_eq!(read("gilles"), AliasTarget::User("gilles".into()));
        assert_eq!(read("gilles+x"), AliasTarget::User("gilles+x".into()));
        assert_eq!(read("\\gilles"), AliasTarget::Mailbox("gilles".into()));
        assert_eq!(read("a@b.org"), AliasTarget::Address("a@b.org".into()));
        assert!(matches!(read("/var/mail/archive-%{rcpt.domain}"), AliasTarget::File(_)));
        assert_eq!(read("|/bin/x 'a b' %{rcpt}").to_string(), "|/bin/x 'a b' %{rcpt}");
        assert_eq!(read(":include:/etc/list"), AliasTarget::Include("/etc/list".into()));
        let AliasTarget::Error(reply) = read("error:550 5.7.1 gone away") else { panic!() };
        assert_eq!((reply.code, &*reply.status, &*reply.text), (550, "5.7.1", "gone away"));
        for bad in ["", "a b", "a@", "a@b@c", ":include:x", "error:x", "|", "/x/%{nothing}", "\\", "a,b"] {
            assert!(AliasTarget::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn records() {
        let user = |text: &str| UserRecord::parse(text).map(|u| u.to_string());
        assert_eq!(user("10:100:/tmp/v").unwrap(), "10:100:/tmp/v");
        assert_eq!(user("vuser:10:100:/tmp/v").unwrap(), "vuser:10:100:/tmp/v");
        assert_eq!(user("joe:x:1000:100:Joe,,,:/home/joe:/bin/sh").unwrap(), "joe:1000:100:/home/joe");
        for bad in ["", "vuser:ten:100:/tmp", "10:100", "10:100:home", "+1:2:/x", "a b:1:2:/x"] {
            assert!(UserRecord::parse(bad).is_err(), "{bad}");
        }
        let login = |text: &str| Credentials::parse(text).map(|c| (c.user, c.secret.reveal().to_owned()));
        assert_eq!(login("gilles:pass:word").unwrap(), (Some("gilles".into()), "pass:word".into()));
        assert_eq!(login("gilles:$2b$10$x").unwrap(), (Some("gilles".into()), "$2b$10$x".into()));
        assert_eq!(login("SCRAM-SHA-256$4096:a$b:c").unwrap(), (None, "SCRAM-SHA-256$4096:a$b:c".into()));
        assert_eq!(login("secret").unwrap(), (None, "secret".into()));
        assert_eq!(login("joe:$6$x$y:10:100:J:/home/joe:/bin/sh").unwrap(), (Some("joe".into()), "$6$x$y".into()));
        assert_eq!(login("joe:a:b:c:d:e:f").unwrap(), (Some("joe".into()), "a:b:c:d:e:f".into()));
        assert!(login("").is_err() && login("gilles:").is_err() && login(":x").is_err());
        assert_eq!(format!("{:?}", Credentials::parse("a:b").unwrap().secret), "…");
        for hash in
            ["{SSHA}x", "{CRYPT}$6$x$y", "$2b$10$x", "$y$j9T$x$y", "$pbkdf2-sha256$1$x$y", "SCRAM-SHA-256$1:x$y:z"]
        {
            assert!(is_known_scheme(hash) && is_password_hash(hash), "{hash}");
        }
        for hash in ["$1$x$y", "{MD5}x", "{CRYPT}ab01FAX.bQRSU", "{NONE}x", "$", "", "SCRAM-SHA-1$1:x$y:z"] {
            assert!(!is_known_scheme(hash), "{hash}");
        }
        assert!(is_password_hash("{SSHA}abc") && is_password_hash("$6$x$y") && !is_password_hash("encryptedpasswd"));
        let key = DkimKey::parse("s1:/etc/dkim/s1.pem").unwrap();
        assert_eq!((&*key.selector, key.key.to_str()), ("s1", Some("/etc/dkim/s1.pem")));
        assert!(DkimKey::parse("s1").is_err());
        assert_eq!(Pem::parse("file:/x").unwrap(), Pem::File("/x".into()));
        assert_eq!(format!("{:?}", Pem::parse("-----BEGIN PRIVATE KEY-----\n…").unwrap()), "PEM");
        assert!(Pem::parse("x").is_err());
    }
}
